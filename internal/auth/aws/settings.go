package aws

import (
	"context"
	"net/http"
	"regexp"
	"strings"

	"github.com/cofferhq/coffer/internal/auth/remote"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// settings are how AWS is asked.
type settings struct {
	AccessKey   string       `json:"access_key"`
	SecretKey   string       `json:"secret_key"`
	IAMEndpoint string       `json:"iam_endpoint"`
	STSEndpoint string       `json:"sts_endpoint"`
	STSRegion   string       `json:"sts_region"`
	FromClient  bool         `json:"use_sts_region_from_client"`
	CA          string       `json:"endpoint_ca_pem"`
	ServerID    string       `json:"iam_server_id_header_value"`
	Headers     wire.Strings `json:"allowed_sts_header_values"`
	Retries     *wire.Int    `json:"max_retries"`
}

// WriteSettings changes the settings.
type WriteSettings struct {
	AccessKey   *string       `json:"access_key" doc:"The access key with which IAM is asked about roles' paths and unique ids. Logins themselves need none."`
	SecretKey   *wire.Secret  `json:"secret_key" doc:"The secret that goes with access_key; never answered."`
	IAMEndpoint *string       `json:"iam_endpoint" doc:"The URL of IAM; AWS's own without."`
	STSEndpoint *string       `json:"sts_endpoint" doc:"The URL of STS, to which every login is sent, whatever URL the caller names; https://sts.amazonaws.com without, which takes requests that are signed for us-east-1 only."`
	STSRegion   *string       `json:"sts_region" doc:"The region of sts_endpoint, which requests must be signed for; any without."`
	FromClient  *wire.Bool    `json:"use_sts_region_from_client" doc:"Send each login to AWS's STS in the region that it is signed for. Not together with sts_endpoint."`
	CA          *string       `json:"endpoint_ca_pem" doc:"Authorities of the certificates of private endpoints, in PEM; the machine's own list without."`
	ServerID    *string       `json:"iam_server_id_header_value" doc:"What X-Vault-AWS-IAM-Server-ID must be, signed along: a request that was signed for another server is of no use here then. Set it."`
	Headers     *wire.Strings `json:"allowed_sts_header_values" doc:"Headers that callers may have signed besides the usual ones."`
	Retries     *wire.Int     `json:"max_retries" doc:"How often AWS is asked again when it fails, at most 5; -1 is 2."`
	Endpoint    *string       `json:"endpoint" doc:"The URL of EC2, which is never asked: leave it out."`
	RoleARN     *string       `json:"role_arn" doc:"A role to assume for asking IAM: not supported, leave it out."`
}

// ReadSettings are the settings.
type ReadSettings struct {
	AccessKey   string       `json:"access_key"`
	Endpoint    string       `json:"endpoint"`
	IAMEndpoint string       `json:"iam_endpoint"`
	STSEndpoint string       `json:"sts_endpoint"`
	STSRegion   string       `json:"sts_region"`
	FromClient  bool         `json:"use_sts_region_from_client"`
	CA          string       `json:"endpoint_ca_pem,omitempty"`
	ServerID    string       `json:"iam_server_id_header_value"`
	Headers     wire.Strings `json:"allowed_sts_header_values"`
	Retries     wire.Int     `json:"max_retries"`
}

const (
	settingsKey = "client"
	maxSetting  = 256 << 10 // bytes
	maxRetries  = 5
	maxHeaders  = 50 // of a request, and that are allowed
)

var (
	regionShape = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)
	tokenShape  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$") // RFC 9110, section 5.1
	plainShape  = regexp.MustCompile(`^[ -~]*$`)
)

// apply changes what the request names, and checks what comes of it.
func (in WriteSettings) apply(s *settings) error {
	rows.Set(&s.AccessKey, in.AccessKey)
	rows.Set(&s.SecretKey, (*string)(in.SecretKey))
	rows.Set(&s.IAMEndpoint, in.IAMEndpoint)
	rows.Set(&s.STSEndpoint, in.STSEndpoint)
	rows.Set(&s.STSRegion, in.STSRegion)
	rows.Set(&s.FromClient, (*bool)(in.FromClient))
	rows.Set(&s.CA, in.CA)
	rows.Set(&s.ServerID, in.ServerID)
	rows.Set(&s.Headers, in.Headers)
	if in.Retries != nil {
		s.Retries = in.Retries
	}
	switch {
	case in.Endpoint != nil && *in.Endpoint != "":
		return fault.New(fault.Invalid, "endpoint: EC2 is never asked; leave it out")
	case in.RoleARN != nil && *in.RoleARN != "":
		return fault.New(fault.Invalid, "role_arn: no role is assumed; write the access_key and secret_key of a user who may call iam:GetRole and iam:GetUser")
	}
	return s.check()
}

func (s *settings) check() error {
	for name, text := range map[string]string{"iam_endpoint": s.IAMEndpoint, "sts_endpoint": s.STSEndpoint} {
		if text == "" {
			continue
		}
		u, err := remote.Secure(text)
		if err == nil && (u.Path != "" && u.Path != "/" || u.RawQuery != "") {
			return fault.New(fault.Invalid, "%s: it has a path or a query; write the scheme and the host only", name)
		}
		if err != nil {
			return fault.New(fault.Invalid, "%s: %s", name, err)
		}
	}
	switch {
	case s.STSEndpoint == "" && s.STSRegion != "":
		return fault.New(fault.Invalid, "sts_region: it is that of sts_endpoint, which must be set, too")
	case s.STSEndpoint != "" && s.FromClient:
		return fault.New(fault.Invalid, "use_sts_region_from_client: sts_endpoint says already where logins are sent")
	case s.STSRegion != "" && !regionShape.MatchString(s.STSRegion):
		return fault.New(fault.Invalid, "sts_region: it is no region, such as eu-central-1")
	case (s.AccessKey == "") != (s.SecretKey == ""):
		return fault.New(fault.Invalid, "access_key and secret_key must be set together")
	case len(s.AccessKey) > 200 || len(s.SecretKey) > 200 || !plainShape.MatchString(s.AccessKey):
		return fault.New(fault.Invalid, "access_key and secret_key: they have at most 200 characters")
	case len(s.ServerID) > 256 || !plainShape.MatchString(s.ServerID) || strings.TrimSpace(s.ServerID) != s.ServerID:
		return fault.New(fault.Invalid, "iam_server_id_header_value: it has at most 256 characters of ASCII, and no space around them")
	case s.Retries != nil && (*s.Retries < -1 || *s.Retries > maxRetries):
		return fault.New(fault.Invalid, "max_retries: it is between -1 and %d", maxRetries)
	case len(s.Headers) > maxHeaders || len(s.CA) > maxSetting:
		return fault.New(fault.Invalid, "allowed_sts_header_values has at most %d entries, and endpoint_ca_pem %d bytes", maxHeaders, maxSetting)
	}
	for i, name := range s.Headers {
		if !tokenShape.MatchString(name) {
			return fault.New(fault.Invalid, "allowed_sts_header_values: entry %d is no name of a header", i+1)
		}
		s.Headers[i] = http.CanonicalHeaderKey(name)
	}
	if _, err := remote.NewClient(s.CA, 1); err != nil {
		return fault.New(fault.Invalid, "endpoint_ca_pem: %s", err)
	}
	return nil
}

// retries is how often AWS is asked again.
func (s *settings) retries() int {
	if s.Retries == nil || *s.Retries < 0 {
		return 2
	}
	return int(*s.Retries)
}

// lately returns the settings, the standards where nobody wrote any.
func (m *Method) lately(ctx context.Context) (*settings, error) {
	s, err := m.settings.Lately(ctx, settingsKey)
	if err == nil && s == nil {
		s = new(settings)
	}
	return s, err
}

func (m *Method) readSettings(ctx context.Context, _ route.Caller, _ route.Nothing) (ReadSettings, error) {
	s, err := m.settings.Find(ctx, settingsKey)
	if err != nil {
		return ReadSettings{}, err
	}
	if s == nil {
		return ReadSettings{}, route.Missing()
	}
	out := ReadSettings{
		AccessKey: s.AccessKey, IAMEndpoint: s.IAMEndpoint, STSEndpoint: s.STSEndpoint, STSRegion: s.STSRegion, FromClient: s.FromClient,
		CA: s.CA, ServerID: s.ServerID, Headers: s.Headers, Retries: -1,
	}
	if s.Retries != nil {
		out.Retries = *s.Retries
	}
	return out, nil
}

func (m *Method) writeSettings(ctx context.Context, _ route.Caller, in WriteSettings) (route.Empty, error) {
	return route.Empty{}, m.settings.Change(ctx, settingsKey, in.apply)
}

func (m *Method) removeSettings(ctx context.Context, _ route.Caller, _ route.Nothing) (route.Empty, error) {
	return route.Empty{}, m.settings.Remove(ctx, settingsKey)
}

// clientFor returns the client that trusts what the settings say.
func (m *Method) clientFor(s *settings) (*remote.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil || m.ca != s.CA {
		client, err := remote.NewClient(s.CA, maxAnswer)
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "endpoint_ca_pem: %s", err)
		}
		if m.client != nil {
			m.client.Close()
		}
		m.ca, m.client = s.CA, client
	}
	return m.client, nil
}
