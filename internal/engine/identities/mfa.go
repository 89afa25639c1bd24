package identities

import (
	"context"
	"time"

	"github.com/cofferhq/coffer/internal/factor"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

var mfaRoutes = []route.Route[*Identities]{
	route.New("LIST", "mfa/method", "List the methods of second factors.", (*Identities).listMethods),
	route.New("GET", "mfa/method/{id}", "Read a method of second factors.", (*Identities).readMethod,
		route.Shows("mfa/method/unknown", "", "")),
	route.New("LIST", "mfa/method/totp", "List the TOTP methods.", (*Identities).listMethods),
	route.New("POST", "mfa/method/totp", "Make a TOTP method.", (*Identities).makeMethod,
		route.Shows("mfa/method/totp", `{"issuer":"Coffer","method_name":"phone"}`, "")),
	route.New("GET", "mfa/method/totp/{id}", "Read a TOTP method.", (*Identities).readMethod,
		route.Shows("mfa/method/totp/unknown", "", "")),
	route.New("POST", "mfa/method/totp/{id}", "Change a TOTP method; secrets that were made stay as they are.", (*Identities).changeMethod,
		route.Shows("mfa/method/totp/unknown", `{"issuer":"Coffer"}`, "")),
	route.New("DELETE", "mfa/method/totp/{id}", "Delete a TOTP method that no login enforcement needs, and its secrets.", (*Identities).deleteMethod,
		route.Shows("mfa/method/totp/unknown", "", "")),
	route.New("POST", "mfa/method/totp/generate", "Make the calling entity's secret of a method. It is shown once.", (*Identities).generate,
		route.Shows("mfa/method/totp/generate", `{"method_id":"unknown"}`, "")),
	route.New("POST", "mfa/method/totp/admin-generate", "Make an entity's secret of a method. It is shown once.", (*Identities).adminGenerate,
		route.Shows("mfa/method/totp/admin-generate", `{"method_id":"unknown","entity_id":"unknown"}`, "")),
	route.New("POST", "mfa/method/totp/admin-destroy", "Delete an entity's secret of a method.", (*Identities).adminDestroy,
		route.Shows("mfa/method/totp/admin-destroy", `{"method_id":"unknown","entity_id":"unknown"}`, "")),
	route.New("LIST", "mfa/login-enforcement", "List the rules that say which logins need a second factor.", (*Identities).listRules),
	route.New("GET", "mfa/login-enforcement/{name}", "Read such a rule.", (*Identities).readRule,
		route.Shows("mfa/login-enforcement/people", "", "")),
	route.New("POST", "mfa/login-enforcement/{name}", "Write such a rule.", (*Identities).writeRule,
		route.Shows("mfa/login-enforcement/people", `{"mfa_method_ids":["unknown"],"auth_method_types":["userpass"]}`, "")),
	route.New("DELETE", "mfa/login-enforcement/{name}", "Delete such a rule.", (*Identities).deleteRule,
		route.Shows("mfa/login-enforcement/people", "", "")),
}

func (s *Identities) factor() *factor.Store { return s.Factors(s.id) }

// MethodFields are what a TOTP method is written with; what is left out stays as it is.
type MethodFields struct {
	Name        *string       `json:"method_name" doc:"A name by which it can be given, too."`
	Issuer      *string       `json:"issuer" doc:"Who issues the secrets, as authenticators show it."`
	Period      *wire.Seconds `json:"period" doc:"How long a passcode holds; 30 seconds unless given."`
	Algorithm   *string       `json:"algorithm" doc:"SHA1, which all authenticators know, SHA256 or SHA512."`
	Digits      *wire.Int     `json:"digits" doc:"6 or 8."`
	Skew        *wire.Int     `json:"skew" doc:"1 accepts the passcode of the period before and after, too; 0 does not."`
	KeySize     *wire.Int     `json:"key_size" doc:"Bytes of a secret; 20 unless given."`
	QRSize      *wire.Int     `json:"qr_size" doc:"Pixels of the picture that authenticators read; 0 makes none."`
	MaxAttempts *wire.Int     `json:"max_validation_attempts" doc:"Wrong passcodes in a row after which none counts for a while."`
}

func (f MethodFields) apply(m *factor.Method) error {
	set(&m.Name, f.Name)
	set(&m.Issuer, f.Issuer)
	set(&m.Algorithm, f.Algorithm)
	if f.Period != nil {
		m.Period = f.Period.Duration()
	}
	for dst, src := range map[*int]*wire.Int{&m.Digits: f.Digits, &m.Skew: f.Skew, &m.KeySize: f.KeySize, &m.QRSize: f.QRSize, &m.MaxAttempts: f.MaxAttempts} {
		if src != nil {
			*dst = int(*src)
		}
	}
	return nil
}

func set[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}

// ChangeMethod changes a method.
type ChangeMethod struct {
	ByID
	MethodFields
}

// MadeMethod answers a method that was made.
type MadeMethod struct {
	ID string `json:"method_id"`
}

func (s *Identities) makeMethod(ctx context.Context, _ route.Caller, in MethodFields) (MadeMethod, error) {
	m, err := s.factor().WriteMethod(ctx, "", in.apply)
	return MadeMethod{m.ID}, err
}

func (s *Identities) changeMethod(ctx context.Context, _ route.Caller, in ChangeMethod) (route.Empty, error) {
	_, err := s.factor().WriteMethod(ctx, in.ID, in.apply)
	return route.Empty{}, err
}

func (s *Identities) deleteMethod(ctx context.Context, _ route.Caller, in ByID) (route.Empty, error) {
	return route.Empty{}, s.factor().DeleteMethod(ctx, in.ID)
}

// Method is a method on the wire.
type Method struct {
	Type        string       `json:"type"`
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Namespace   string       `json:"namespace_id"`
	Issuer      string       `json:"issuer"`
	Period      wire.Seconds `json:"period"`
	Algorithm   string       `json:"algorithm"`
	Digits      int          `json:"digits"`
	Skew        int          `json:"skew"`
	KeySize     int          `json:"key_size"`
	QRSize      int          `json:"qr_size"`
	MaxAttempts int          `json:"max_validation_attempts"`
}

func (s *Identities) method(m *factor.Method) Method {
	return Method{
		Type: factor.TOTP, ID: m.ID, Name: m.Name, Namespace: s.namespace, Issuer: m.Issuer, Period: wire.Seconds(m.Period.Truncate(time.Second)),
		Algorithm: m.Algorithm, Digits: m.Digits, Skew: m.Skew, KeySize: m.KeySize, QRSize: m.QRSize, MaxAttempts: m.MaxAttempts,
	}
}

func (s *Identities) readMethod(ctx context.Context, _ route.Caller, in ByID) (Method, error) {
	m, err := s.factor().Method(ctx, in.ID)
	if err != nil {
		return Method{}, err
	}
	return s.method(m), nil
}

func (s *Identities) listMethods(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[Method], error) {
	out := route.KeysInfo[Method]{Info: map[string]Method{}}
	all, err := s.factor().Methods(ctx)
	for i := range all {
		out.Keys = append(out.Keys, all[i].ID)
		out.Info[all[i].ID] = s.method(&all[i])
	}
	return found(out, err)
}

// OfMethod names a method.
type OfMethod struct {
	Method string `json:"method_id" doc:"The method's id."`
}

// OfEntity names a method and an entity.
type OfEntity struct {
	OfMethod
	Entity string `json:"entity_id" doc:"The entity's id."`
}

// Generated is a secret that was made. It is shown once.
type Generated struct {
	route.Notes
	Barcode string      `json:"barcode" doc:"A picture for authenticators: PNG in base64."`
	URL     wire.Secret `json:"url" doc:"The same as otpauth:// URL."`
}

// MarshalJSON shows the secret.
func (g Generated) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Barcode string `json:"barcode"`
		URL     string `json:"url"`
	}{g.Barcode, g.URL.Reveal()})
}

func (s *Identities) generateFor(ctx context.Context, method, entity string) (Generated, error) {
	switch {
	case method == "":
		return Generated{}, fault.New(fault.Invalid, "missing method ID")
	case entity == "":
		return Generated{}, fault.New(fault.Invalid, "missing entity ID; a token without an entity has no second factor")
	}
	made, err := s.factor().Generate(ctx, method, entity)
	if fault.Is(err, fault.NotFound) {
		return Generated{}, fault.New(fault.Invalid, "configuration for method ID %q does not exist", method)
	}
	if err != nil {
		return Generated{}, err
	}
	var out Generated
	if made == nil {
		out.Warn("Entity already has a secret for MFA method \"" + method + "\"")
		return out, nil
	}
	out.Barcode, out.URL = made.Barcode, wire.Secret(made.URL)
	return out, nil
}

func (s *Identities) generate(ctx context.Context, by route.Caller, in OfMethod) (Generated, error) {
	return s.generateFor(ctx, in.Method, by.EntityID)
}

func (s *Identities) adminGenerate(ctx context.Context, _ route.Caller, in OfEntity) (Generated, error) {
	return s.generateFor(ctx, in.Method, in.Entity)
}

func (s *Identities) adminDestroy(ctx context.Context, _ route.Caller, in OfEntity) (route.Empty, error) {
	err := s.factor().Destroy(ctx, in.Method, in.Entity)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.Invalid, "configuration for method ID %q does not exist", in.Method)
	}
	return route.Empty{}, err
}

// Enforcement is a rule on the wire: which logins need a second factor.
type Enforcement struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Namespace string   `json:"namespace_id"`
	Methods   []string `json:"mfa_method_ids"`
	Accessors []string `json:"auth_method_accessors"`
	Types     []string `json:"auth_method_types"`
	Groups    []string `json:"identity_group_ids"`
	Entities  []string `json:"identity_entity_ids"`
}

// WriteEnforcement says which logins need a second factor: those that any of its lists
// names.
type WriteEnforcement struct {
	ByName
	Methods   wire.Strings `json:"mfa_method_ids" doc:"Methods, any of which proves it."`
	Accessors wire.Strings `json:"auth_method_accessors" doc:"Logins by the auth methods of these accessors."`
	Types     wire.Strings `json:"auth_method_types" doc:"Logins by auth methods of these types, such as userpass."`
	Groups    wire.Strings `json:"identity_group_ids" doc:"Logins of members of these groups, by id."`
	Entities  wire.Strings `json:"identity_entity_ids" doc:"Logins of these entities, by id."`
}

func (s *Identities) writeRule(ctx context.Context, _ route.Caller, in WriteEnforcement) (route.Empty, error) {
	for _, accessor := range in.Accessors {
		if _, _, ok := s.store().Mount(accessor); !ok {
			return route.Empty{}, fault.New(fault.Invalid, "one of the auth method accessors provided is invalid: %q", accessor)
		}
	}
	return route.Empty{}, s.factor().WriteRule(ctx, factor.Rule{
		Name: in.Name, Methods: in.Methods, Accessors: in.Accessors, Types: in.Types, Groups: in.Groups, Entities: in.Entities,
	})
}

func (s *Identities) enforcement(r *factor.Rule) Enforcement {
	return Enforcement{
		Name: r.Name, ID: r.ID, Namespace: s.namespace, Methods: plain(r.Methods), Accessors: plain(r.Accessors),
		Types: plain(r.Types), Groups: plain(r.Groups), Entities: plain(r.Entities),
	}
}

func (s *Identities) readRule(ctx context.Context, _ route.Caller, in ByName) (Enforcement, error) {
	r, err := s.factor().Rule(ctx, in.Name)
	if err != nil {
		return Enforcement{}, err
	}
	return s.enforcement(r), nil
}

func (s *Identities) listRules(ctx context.Context, _ route.Caller, _ route.Nothing) (route.KeysInfo[Enforcement], error) {
	out := route.KeysInfo[Enforcement]{Info: map[string]Enforcement{}}
	all, err := s.factor().Rules(ctx)
	for i := range all {
		out.Keys = append(out.Keys, all[i].Name)
		out.Info[all[i].Name] = s.enforcement(&all[i])
	}
	return found(out, err)
}

func (s *Identities) deleteRule(ctx context.Context, _ route.Caller, in ByName) (route.Empty, error) {
	return route.Empty{}, s.factor().DeleteRule(ctx, in.Name)
}
