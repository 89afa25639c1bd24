package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/fault"
)

// cluster is an API server and the token with which it is asked.
type cluster struct {
	host   string
	bearer string
	own    bool // the bearer is this server's, not the one that logs in
	client *remote.Client
}

const maxAnswer = 1 << 20 // bytes of an answer of the API server

// cluster returns the API server as the settings have it. token is the one that
// logs in.
func (m *Method) cluster(c *config, token string) (cluster, error) {
	out := cluster{host: strings.TrimRight(c.Host, "/"), bearer: c.Reviewer, own: true}
	ca := c.CA
	if !c.NoOwn {
		if out.bearer == "" {
			out.bearer = m.own.read(ownToken)
		}
		if ca == "" {
			ca = m.own.read(ownCA)
		}
	}
	if out.bearer == "" {
		out.bearer, out.own = token, false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if server := c.ID + "\n" + ca; m.client == nil || m.server != server {
		client, err := remote.NewClient(ca, maxAnswer)
		if err != nil {
			return out, fault.Wrap(fault.Unavailable, err, "the authorities of the API server's certificate in this server's own pod cannot be read; write kubernetes_ca_cert")
		}
		if m.client != nil {
			m.client.Close()
		}
		m.server, m.client = server, client
	}
	out.client = m.client
	return out, nil
}

// ask sends a request to the API server and decodes its answer. What is wrong on
// the server's side is a fault of kind Unavailable; a caller whose own token is not
// let in is one of kind Denied.
func (c cluster) ask(ctx context.Context, method, path string, body, into any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.host+path, bytes.NewReader(text))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "kubernetes_host is no address")
	}
	request.Header.Set("Authorization", "Bearer "+c.bearer)
	request.Header.Set("Accept", "application/json")
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.client.Send(request)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the Kubernetes API server at %s cannot be asked: %s", c.host, err)
	}
	switch answer.Status {
	case http.StatusOK, http.StatusCreated:
	case http.StatusUnauthorized, http.StatusForbidden:
		return c.refused(answer.Status)
	default:
		return fault.New(fault.Unavailable, "the Kubernetes API server at %s answered %d", c.host, answer.Status)
	}
	if err := json.Unmarshal(answer.Body, into); err != nil {
		return fault.Wrap(fault.Unavailable, err, "what answers at %s is no Kubernetes API server: its answer is not the JSON that one gives", c.host)
	}
	return nil
}

// refused says what it means that the bearer is not let in.
func (c cluster) refused(status int) error {
	switch {
	case c.own && status == http.StatusUnauthorized:
		return fault.New(fault.Unavailable, "the Kubernetes API server does not know this server's own token (401): it may have ended, or its service account be deleted; write another token_reviewer_jwt")
	case c.own:
		return fault.New(fault.Unavailable, "the Kubernetes API server does not allow this server's own token to ask (403); bind its service account to the cluster role system:auth-delegator, and let it read namespaces or service accounts where the settings need it")
	case status == http.StatusUnauthorized:
		return fault.New(fault.Denied, "permission denied: lookup failed: service account unauthorized; this could mean it has been deleted or recreated with a new token")
	}
	return fault.New(fault.Denied, "permission denied: the service account may not ask for a review of its own token; bind it to the cluster role system:auth-delegator, or write a token_reviewer_jwt")
}

// review is a TokenReview (authentication.k8s.io/v1).
type review struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Spec       reviewSpec   `json:"spec"`
	Status     reviewStatus `json:"status,omitzero"`
}

type reviewSpec struct {
	Token     string   `json:"token"`
	Audiences []string `json:"audiences,omitempty"`
}

type reviewStatus struct {
	Authenticated bool   `json:"authenticated"`
	Error         string `json:"error"`
	User          struct {
		Username string `json:"username"`
		UID      string `json:"uid"`
	} `json:"user"`
	Audiences []string `json:"audiences"`
}

const (
	reviewAPI  = "authentication.k8s.io/v1"
	reviewKind = "TokenReview"
)

// review asks whether a token holds for one of the audiences, and returns whose it
// is. A token that does not is a fault of kind Denied.
func (c cluster) review(ctx context.Context, token string, audiences []string) (account, error) {
	question := review{APIVersion: reviewAPI, Kind: reviewKind, Spec: reviewSpec{token, audiences}}
	var answer review
	if err := c.ask(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", question, &answer); err != nil {
		return account{}, err
	}
	s := answer.Status
	if answer.Kind != reviewKind || answer.APIVersion != reviewAPI {
		return account{}, fault.New(fault.Unavailable, "what answers at %s is no Kubernetes API server: its answer is no TokenReview", c.host)
	}
	denied := func(why string) (account, error) {
		return account{}, fault.New(fault.Denied, "permission denied: lookup failed: %s", why)
	}
	switch {
	case s.Error != "":
		return denied("the cluster says that the token is not valid")
	case !s.Authenticated:
		return denied("service account jwt not valid")
	case len(audiences) > 0 && !overlap(audiences, s.Audiences):
		// A server that knows no audiences answers none, and did not look at them.
		return denied("the cluster does not say that the token is for the audience")
	}
	namespace, name, err := parseUser(s.User.Username)
	if err != nil {
		return denied(err.Error())
	}
	return account{Namespace: namespace, Name: name, UID: s.User.UID}, nil
}

func overlap(a, b []string) bool {
	for _, x := range a {
		for _, y := range b {
			if x == y {
				return true
			}
		}
	}
	return false
}

// object is what is read of a namespace or a service account.
type object struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name        string            `json:"name"`
		UID         string            `json:"uid"`
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// get reads an object that there must be.
func (c cluster) get(ctx context.Context, kind, name, path string) (object, error) {
	var out object
	if err := c.ask(ctx, http.MethodGet, path, nil, &out); err != nil {
		return out, err
	}
	if out.Kind != kind || out.Metadata.Name != name {
		return out, fault.New(fault.Unavailable, "what answers at %s is no Kubernetes API server: its answer is not the %s that was asked for", c.host, kind)
	}
	return out, nil
}

// labels are a namespace's.
func (c cluster) labels(ctx context.Context, namespace string) (map[string]string, error) {
	o, err := c.get(ctx, "Namespace", namespace, "/api/v1/namespaces/"+url.PathEscape(namespace))
	return o.Metadata.Labels, err
}

// annotations are a service account's.
func (c cluster) annotations(ctx context.Context, a account) (map[string]string, error) {
	o, err := c.get(ctx, "ServiceAccount", a.Name, "/api/v1/namespaces/"+url.PathEscape(a.Namespace)+"/serviceaccounts/"+url.PathEscape(a.Name))
	if err == nil && o.Metadata.UID != a.UID {
		err = fault.New(fault.Denied, "permission denied: the service account was deleted, and there is another of its name")
	}
	return o.Metadata.Annotations, err
}
