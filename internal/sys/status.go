package sys

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var statusRoutes = []route.Route[*System]{
	route.New("GET", "health", "Say whether the server is initialized and unsealed, by status code.", (*System).health,
		route.Public(), route.WhileSealed(), route.Shows("health", "", "")),
	route.New("GET", "ready", "Answer 200 once the server serves requests, 503 before.", (*System).ready, route.Public(), route.WhileSealed()),
	route.New("GET", "seal-status", "Read how the seal stands.", (*System).sealStatus, route.Public(), route.WhileSealed(),
		route.Shows("seal-status", "", "")),
	route.New("GET", "leader", "Read which node leads; every node of Coffer serves.", (*System).leader, route.Public(), route.WhileSealed()),
	route.New("GET", "ha-status", "List the nodes.", (*System).haStatus),
}

// HealthRequest lets a load balancer choose the codes.
type HealthRequest struct {
	Active  wire.Int  `query:"activecode" doc:"Status for an unsealed server; 200."`
	Sealed  wire.Int  `query:"sealedcode" doc:"Status for a sealed server; 503."`
	Uninit  wire.Int  `query:"uninitcode" doc:"Status for a server that is not initialized; 501."`
	Standby wire.Bool `query:"standbyok" doc:"Accepted for Vault's clients: every node serves."`
	Perf    wire.Bool `query:"perfstandbyok" doc:"Answer activecode also while only stale reads are served."`
	Code    wire.Int  `query:"standbycode" doc:"Accepted for Vault's clients."`
	DR      wire.Int  `query:"drsecondarycode" doc:"Accepted for Vault's clients."`
	PerfC   wire.Int  `query:"performancestandbycode" doc:"Status while the storage engine cannot be reached and stale reads are served; 473."`
}

// Health is how the server is.
type Health struct {
	route.Bare
	route.Notes
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	PerfStandby bool   `json:"performance_standby"`
	PerfMode    string `json:"replication_performance_mode"`
	DRMode      string `json:"replication_dr_mode"`
	Time        int64  `json:"server_time_utc"` // Unix seconds
	Version     string `json:"version"`
	Enterprise  bool   `json:"enterprise"`
	ClusterName string `json:"cluster_name,omitempty"`
	ClusterID   string `json:"cluster_id,omitempty"`
	EchoMS      int64  `json:"echo_duration_ms"`
	ClockSkewMS int64  `json:"clock_skew_ms"`
	Coffer      string `json:"coffer_version"`
	BehindMS    int64  `json:"behind_ms"`         // how old at most what is answered from memory is
	Storage     string `json:"storage,omitempty"` // "unreachable" while it is
}

// healthBound is how long health waits for the storage engine in all: checks of
// load balancers give up after 2 s or so.
const healthBound = time.Second

func (s *System) health(ctx context.Context, _ route.Caller, in HealthRequest) (Health, error) {
	asking, cancel := context.WithTimeout(ctx, healthBound)
	defer cancel()
	status, err := s.Node.Status(ctx)
	if err != nil {
		return Health{}, err
	}
	h := Health{
		Initialized: status.Initialized, Sealed: status.Sealed, PerfMode: "disabled", DRMode: "disabled",
		Time: time.Now().Unix(), Version: s.Version.Wire(), Coffer: s.Version.Coffer,
	}
	switch {
	case !status.Initialized:
		h.Status, err = code("uninitcode", in.Uninit, 501)
	case status.Sealed:
		h.Status, err = code("sealedcode", in.Sealed, 503)
	default:
		h.ClusterID, h.ClusterName = status.ClusterID, s.ClusterName(status.ClusterID)
		err = h.storage(s.Storage(asking, !status.Remembered), in)
	}
	return h, err
}

// storage chooses the status of an unsealed node: 200 while its storage engine
// answers, otherwise Vault's status of a node that only reads where the
// configuration has it serve stale reads, and 503.
func (h *Health) storage(st Storage, in HealthRequest) (err error) {
	h.BehindMS = st.Behind.Milliseconds()
	if st.Reached {
		h.Status, err = code("activecode", in.Active, 200)
		return err
	}
	h.Storage, h.PerfStandby = "unreachable", st.Serving
	switch {
	case !st.Serving:
		h.Status = 503
	case bool(in.Perf):
		h.Status, err = code("activecode", in.Active, 200)
	default:
		h.Status, err = code("performancestandbycode", in.PerfC, 473)
	}
	return err
}

// code returns the status a client chose, or the usual one. Codes below 200 are
// no answers.
func code(name string, chosen wire.Int, usual int) (int, error) {
	switch {
	case chosen == 0:
		return usual, nil
	case chosen < 200 || chosen > 599:
		return 0, fault.New(fault.Invalid, "%s: it must be a status from 200 to 599", name)
	}
	return int(chosen), nil
}

// Ready says whether requests are served.
type Ready struct {
	route.Bare
	route.Notes
	Ready bool `json:"ready"`
}

func (s *System) ready(ctx context.Context, _ route.Caller, _ route.Nothing) (Ready, error) {
	status, err := s.Node.Status(ctx)
	if err != nil {
		return Ready{}, err
	}
	r := Ready{Ready: status.Initialized && !status.Sealed && s.Storage(ctx, !status.Remembered).Serving}
	if !r.Ready {
		r.Status = 503
	}
	return r, nil
}

// SealStatus is how the seal stands, in Vault's shape.
type SealStatus struct {
	route.Bare
	Type         string    `json:"type"`
	Initialized  bool      `json:"initialized"`
	Sealed       bool      `json:"sealed"`
	Threshold    int       `json:"t"`
	Shares       int       `json:"n"`
	Progress     int       `json:"progress"`
	Nonce        string    `json:"nonce"`
	Version      string    `json:"version"`
	Built        wire.Time `json:"build_date"`
	Migration    bool      `json:"migration"`
	ClusterName  string    `json:"cluster_name,omitempty"`
	ClusterID    string    `json:"cluster_id,omitempty"`
	RecoverySeal bool      `json:"recovery_seal"`
	StorageType  string    `json:"storage_type"`
}

func (s *System) sealStatus(ctx context.Context, _ route.Caller, _ route.Nothing) (SealStatus, error) {
	status, err := s.Node.Status(ctx)
	if err != nil {
		return SealStatus{}, err
	}
	out := SealStatus{
		Type: status.Type, Initialized: status.Initialized, Sealed: status.Sealed, Threshold: status.Threshold,
		Shares: status.Shares, Progress: status.Progress, Nonce: status.Nonce, Version: s.Version.Wire(),
		Built: wire.Time{Time: s.Version.Built}, Migration: status.Migration, RecoverySeal: status.RecoverySeal,
		StorageType: s.StorageType,
	}
	if !status.Sealed {
		out.ClusterID, out.ClusterName = status.ClusterID, s.ClusterName(status.ClusterID)
	}
	return out, nil
}

// Leader is which node leads, in Vault's shape. Every node of Coffer serves, so
// that each answers for itself.
type Leader struct {
	route.Bare
	HA            bool      `json:"ha_enabled"`
	Self          bool      `json:"is_self"`
	ActiveTime    wire.Time `json:"active_time"`
	Address       string    `json:"leader_address"`
	Cluster       string    `json:"leader_cluster_address"`
	PerfStandby   bool      `json:"performance_standby"`
	LastRemoteWAL int       `json:"performance_standby_last_remote_wal"`
}

func (s *System) leader(context.Context, route.Caller, route.Nothing) (Leader, error) {
	return Leader{HA: s.Shared, Self: true, ActiveTime: wire.Time{Time: started}, Address: s.Address}, nil
}

// HANode is one node.
type HANode struct {
	Hostname   string     `json:"hostname"`
	APIAddress string     `json:"api_address"`
	Cluster    string     `json:"cluster_address"`
	Active     bool       `json:"active_node"`
	Echo       *wire.Time `json:"last_echo"` // null of a node that answers for itself
	EchoMS     int64      `json:"echo_duration_ms"`
	SkewMS     int64      `json:"clock_skew_ms"` // how far its clock is ahead of the answering node's
	Version    string     `json:"version"`
	NodeID     string     `json:"node_id"`
	Live       bool       `json:"live"` // it was heard of in the last seconds
}

// HAStatus lists the nodes.
type HAStatus struct {
	route.Doubled
	Nodes []HANode `json:"nodes"`
}

func (s *System) haStatus(context.Context, route.Caller, route.Nothing) (HAStatus, error) {
	out := HAStatus{}
	for _, m := range s.Open().Members.List() {
		n := HANode{
			Hostname: m.Hostname, APIAddress: m.APIAddress, Cluster: m.ClusterAddress, Active: m.Live,
			SkewMS: m.Skew.Milliseconds(), Version: m.Version, NodeID: m.Node, Live: m.Live,
		}
		if !m.Self {
			n.Echo = &wire.Time{Time: m.Echo.UTC()}
		}
		out.Nodes = append(out.Nodes, n)
	}
	return out, nil
}
