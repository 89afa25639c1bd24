package kubernetes

import (
	"errors"
	"regexp"
	"strings"

	"github.com/cofferhq/coffer/internal/auth/issuer"
)

// account is the service account that a token is of.
type account struct {
	Namespace, Name, UID string
	Secret               string // which holds the token, where it is one of the kind that does not end
}

// Names of Kubernetes objects (RFC 1123), which also go into addresses.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

const maxUID = 253

func (a account) check() error {
	switch {
	case !label.MatchString(a.Namespace) || !subdomain.MatchString(a.Name):
		return errors.New("it names no service account and namespace")
	case a.UID == "" || len(a.UID) > maxUID:
		return errors.New("could not parse UID from claims")
	}
	return nil
}

// accountOf reads the claims of a token: of one that is projected into a pod, or
// that TokenRequest made, which say it in an object, and of one from a secret, which
// say it in claims of their own.
func accountOf(claims issuer.Claims) (account, error) {
	a := account{
		Namespace: claims.Text("kubernetes.io/serviceaccount/namespace"), Name: claims.Text("kubernetes.io/serviceaccount/service-account.name"),
		UID: claims.Text("kubernetes.io/serviceaccount/service-account.uid"), Secret: claims.Text("kubernetes.io/serviceaccount/secret.name"),
	}
	if claims["kubernetes.io"] != nil {
		const at = "/kubernetes.io/"
		a = account{Namespace: claims.Text(at + "namespace"), Name: claims.Text(at + "serviceaccount/name"), UID: claims.Text(at + "serviceaccount/uid")}
	}
	if len(a.Secret) > maxUID {
		return a, errors.New("its secret's name is too long")
	}
	return a, a.check()
}

// parseUser reads a user name of a service account:
// system:serviceaccount:namespace:name.
func parseUser(text string) (namespace, name string, err error) {
	parts := strings.Split(text, ":")
	switch {
	case len(parts) != 4:
		return "", "", errors.New("unexpected username format")
	case parts[0] != "system" || parts[1] != "serviceaccount":
		return "", "", errors.New("username returned is not a service account")
	}
	return parts[2], parts[3], nil
}
