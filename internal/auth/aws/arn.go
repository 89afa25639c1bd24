package aws

import (
	"fmt"
	"regexp"
	"strings"
)

// principal is a user or a role of AWS, as an ARN names it.
type principal struct {
	Partition string // aws, aws-cn …
	Account   string // 12 digits
	Kind      string // user, role or assumed-role
	Path      string // "/" or "/a/b/"; "" of an assumed role, whose ARN does not tell it
	Name      string
	Session   string // of an assumed role
}

// Parts of ARNs (AWS General Reference; IAM identifiers).
var (
	partitionShape = regexp.MustCompile(`^aws(-[a-z0-9]+)*$`)
	accountShape   = regexp.MustCompile(`^[0-9]{12}$`)
	nameShape      = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	pathShape      = regexp.MustCompile(`^/([!-.0-~]+/)*$`)
)

const maxARN = 2048 // bytes

// parseARN reads the ARN of a user, of a role or of an assumed role.
func parseARN(text string) (p principal, err error) {
	parts := strings.SplitN(text, ":", 6)
	switch {
	case len(text) > maxARN:
		return p, fmt.Errorf("the ARN is longer than %d bytes", maxARN)
	case len(parts) != 6 || parts[0] != "arn" || !partitionShape.MatchString(parts[1]) || parts[3] != "" || !accountShape.MatchString(parts[4]):
		return p, fmt.Errorf("unrecognized arn: %.100q", text)
	}
	p.Partition, p.Account = parts[1], parts[4]
	kind, rest, _ := strings.Cut(parts[5], "/")
	switch parts[2] + ":" + kind {
	case "iam:user", "iam:role":
		at := strings.LastIndexByte(rest, '/') + 1
		p.Kind, p.Path, p.Name = kind, "/"+rest[:at], rest[at:]
		if !pathShape.MatchString(p.Path) || len(p.Path) > 512 {
			return p, fmt.Errorf("unrecognized arn: %.100q", text)
		}
	case "sts:assumed-role":
		p.Kind = kind
		p.Name, p.Session, _ = strings.Cut(rest, "/")
		if !nameShape.MatchString(p.Session) {
			return p, fmt.Errorf("unrecognized arn: %.100q", text)
		}
	default:
		return p, fmt.Errorf("unrecognized principal type: %.30q", kind)
	}
	if !nameShape.MatchString(p.Name) {
		return p, fmt.Errorf("unrecognized arn: %.100q", text)
	}
	return p, nil
}

// canonical is the ARN without path and session: what is known of every principal.
func (p principal) canonical() string {
	return fmt.Sprintf("arn:%s:iam::%s:%s/%s", p.Partition, p.Account, p.noun(), p.Name)
}

// full is the ARN with the path.
func (p principal) full() string {
	return fmt.Sprintf("arn:%s:iam::%s:%s%s%s", p.Partition, p.Account, p.noun(), p.Path, p.Name)
}

func (p principal) noun() string {
	if p.Kind == "assumed-role" {
		return "role"
	}
	return p.Kind
}

// bound is a principal, or several by a pattern, that a role is for.
type bound string

// Patterns are ARNs in which a * may stand in what comes after the account.
var boundShape = regexp.MustCompile(`^arn:aws(-[a-z0-9]+)*:iam::[0-9]{12}:(\*|(user|role)/(\*|[!-.0-~/]*[!-.0-~]))$`)

func (b bound) check() error {
	text := string(b)
	switch {
	case len(text) > maxARN:
		return fmt.Errorf("it is longer than %d bytes", maxARN)
	case strings.Count(text, "*") > 8:
		return fmt.Errorf("it has more than 8 stars")
	case !boundShape.MatchString(text):
		return fmt.Errorf("%.100q is no ARN of a user or role, such as arn:aws:iam::123456789012:role/deploy; a * may stand after the account only", text)
	case !b.pattern():
		_, err := parseARN(text)
		return err
	}
	return nil
}

func (b bound) pattern() bool { return strings.Contains(string(b), "*") }

// account is the account's number.
func (b bound) account() string { return strings.Split(string(b), ":")[4] }

// resource is what comes after the account: "role/a/b".
func (b bound) resource() string { return strings.SplitN(string(b), ":", 6)[5] }

// needsPath reports whether a role's path counts for it, which only IAM tells: it
// names one, or is a pattern that does not fit all paths.
func (b bound) needsPath() bool {
	rest, role := strings.CutPrefix(b.resource(), "role/")
	return role && rest != "*" && strings.ContainsAny(rest, "*/")
}
