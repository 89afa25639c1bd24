package client

import "context"

// Cert logs in with the client certificate of Config.ClientCert at the method
// mounted at auth/mount; "" is cert. role is "" for the first that accepts it.
func (l Logins) Cert(ctx context.Context, mount, role string) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "cert")+"/login", struct {
		Name string `json:"name,omitempty"`
	}{role})
}

// SPIFFE logs a workload in at the method mounted at auth/mount; "" is spiffe. With
// a JWT-SVID it is that workload's, and without one, "", that of the X.509-SVID in
// Config.ClientCert.
func (l Logins) SPIFFE(ctx context.Context, mount, role string, jwt Secret) (*Auth, error) {
	return l.At(ctx, "auth/"+mountPath(mount, "spiffe")+"/login", struct {
		Role string `json:"role"`
		JWT  Secret `json:"jwt,omitempty"`
	}{role, jwt})
}
