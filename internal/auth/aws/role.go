package aws

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// role is a role's row, and what is answered of it.
type role struct {
	ID         string       `json:"role_id"`
	Type       string       `json:"auth_type"`
	Principals wire.Strings `json:"bound_iam_principal_arn"`
	UniqueIDs  wire.Strings `json:"bound_iam_principal_id"` // of Principals that are no patterns, where Resolve says so
	Accounts   wire.Strings `json:"bound_account_id"`
	Resolve    bool         `json:"resolve_aws_unique_ids"`
	Inferred   string       `json:"inferred_entity_type"` // always empty
	Region     string       `json:"inferred_aws_region"`  // always empty
	auth.TokenParams
	auth.Older
}

// Named names a role.
type Named struct {
	Name string `path:"name" doc:"The role's name, in any case."`
}

// WriteRole creates or changes a role.
type WriteRole struct {
	Named
	Type       *string       `json:"auth_type" doc:"iam. ec2 is not supported."`
	Principals *wire.Strings `json:"bound_iam_principal_arn" doc:"ARNs of users and roles, without their path unless config/client has an access_key; a * after the account stands for any characters."`
	Accounts   *wire.Strings `json:"bound_account_id" doc:"Accounts of which the caller must be; with bound_iam_principal_arn both must fit."`
	Resolve    *wire.Bool    `json:"resolve_aws_unique_ids" doc:"Ask IAM for the unique ids of the principals and demand those, so that a user or role that is made anew under a name does not get in. Needs config/client's access_key; false unless written."`
	Inferred   *string       `json:"inferred_entity_type" doc:"Not supported: leave it out."`
	Region     *string       `json:"inferred_aws_region" doc:"Not supported: leave it out."`
	AMI        *wire.Strings `json:"bound_ami_id" doc:"Of the type ec2, which is not supported."`
	Instance   *wire.Strings `json:"bound_ec2_instance_id" doc:"Of the type ec2, which is not supported."`
	Profile    *wire.Strings `json:"bound_iam_instance_profile_arn" doc:"Of the type ec2, which is not supported."`
	EC2Role    *wire.Strings `json:"bound_iam_role_arn" doc:"Of the type ec2, which is not supported."`
	EC2Region  *wire.Strings `json:"bound_region" doc:"Of the type ec2, which is not supported."`
	Subnet     *wire.Strings `json:"bound_subnet_id" doc:"Of the type ec2, which is not supported."`
	VPC        *wire.Strings `json:"bound_vpc_id" doc:"Of the type ec2, which is not supported."`
	auth.TokenFields
	auth.OlderFields
}

const maxBound = 200 // entries of a list

// refused refuses what only EC2 instances have.
func (in WriteRole) refused() error {
	for name, list := range map[string]*wire.Strings{
		"bound_ami_id": in.AMI, "bound_ec2_instance_id": in.Instance, "bound_iam_instance_profile_arn": in.Profile,
		"bound_iam_role_arn": in.EC2Role, "bound_region": in.EC2Region, "bound_subnet_id": in.Subnet, "bound_vpc_id": in.VPC,
	} {
		if list != nil && len(*list) > 0 {
			return fault.New(fault.Invalid, "%s: EC2 instances do not log in as such; let them log in as the role of their instance profile (auth_type iam), and write bound_iam_principal_arn", name)
		}
	}
	switch {
	case in.Type != nil && *in.Type != "iam":
		return fault.New(fault.Invalid, "auth_type: it is iam; EC2 instances log in as the role of their instance profile")
	case in.Inferred != nil && *in.Inferred != "", in.Region != nil && *in.Region != "":
		return fault.New(fault.Invalid, "inferred_entity_type and inferred_aws_region: EC2 is not asked about callers; leave them out")
	}
	return nil
}

// apply changes what the request names, and checks what comes of it.
func (in WriteRole) apply(o *role, s *settings) error {
	if err := in.refused(); err != nil {
		return err
	}
	rows.Set(&o.Principals, in.Principals)
	rows.Set(&o.Accounts, in.Accounts)
	rows.Set(&o.Resolve, (*bool)(in.Resolve))
	o.Type = "iam"
	if o.ID == "" {
		o.ID = uuid.NewString()
	}
	switch {
	case len(o.Principals)+len(o.Accounts) == 0:
		return fault.New(fault.Invalid, "at least be one bound parameter should be specified on the role: bound_iam_principal_arn or bound_account_id")
	case len(o.Principals) > maxBound || len(o.Accounts) > maxBound:
		return fault.New(fault.Invalid, "bound_iam_principal_arn and bound_account_id have at most %d entries", maxBound)
	case o.Resolve && !s.asksIAM():
		return fault.New(fault.Invalid, "resolve_aws_unique_ids: write the access_key and secret_key of config/client first, with which IAM is asked")
	}
	for _, account := range o.Accounts {
		if !accountShape.MatchString(account) {
			return fault.New(fault.Invalid, "bound_account_id: %.30q is no account, which has 12 digits", account)
		}
	}
	for _, text := range o.Principals {
		b := bound(text)
		if err := b.check(); err != nil {
			return fault.New(fault.Invalid, "bound_iam_principal_arn: %s", err)
		}
		if b.needsPath() && !s.asksIAM() {
			return fault.New(fault.Invalid, "bound_iam_principal_arn: whether a role fits %.100q depends on its path, which only IAM tells: write the access_key and secret_key of config/client first, or name the role without its path, or all of them (role/*)", text)
		}
	}
	return in.OlderFields.Apply(in.TokenFields, &o.TokenParams, &o.Older)
}

// resolved are the unique ids of the principals that are no patterns.
func (m *Method) resolved(ctx context.Context, s *settings, o *role) (wire.Strings, error) {
	ids := wire.Strings{}
	if !o.Resolve {
		return ids, nil
	}
	for _, text := range o.Principals {
		if bound(text).pattern() {
			continue
		}
		p, err := parseARN(text)
		if err != nil {
			return nil, err
		}
		e, err := m.lookUp(ctx, s, p)
		if err != nil {
			return nil, err
		}
		if p.Path != "/" && e.Path != p.Path {
			return nil, fault.New(fault.Invalid, "bound_iam_principal_arn: IAM knows %s as %s", text, e.full())
		}
		ids = append(ids, e.id)
	}
	return ids, nil
}

func (m *Method) writeRole(ctx context.Context, _ route.Caller, in WriteRole) (out route.Empty, err error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return out, err
	}
	s, err := m.lately(ctx)
	if err != nil {
		return out, err
	}
	// IAM is asked before, of the role as it will be; it is not asked in a
	// transaction.
	next, err := m.roles.Find(ctx, name)
	if err != nil {
		return out, err
	}
	if next == nil {
		next = new(role)
	}
	if err := in.apply(next, s); err != nil {
		return out, err
	}
	ids, err := m.resolved(ctx, s, next)
	if err != nil {
		return out, err
	}
	return out, m.roles.Change(ctx, name, func(o *role) error {
		if err := in.apply(o, s); err != nil {
			return err
		}
		if !slices.Equal(o.Principals, next.Principals) || o.Resolve != next.Resolve {
			return fault.New(fault.Conflict, "the role was changed by somebody else meanwhile; read it and try again")
		}
		o.UniqueIDs = ids
		return nil
	})
}

func (m *Method) list(ctx context.Context, _ route.Caller, in route.Page) (route.Keys, error) {
	return m.roles.List(ctx, in)
}

// find returns a role as it is now, nil when there is none.
func (m *Method) find(ctx context.Context, in Named) (*role, error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return nil, err
	}
	return m.roles.Find(ctx, name)
}

func (m *Method) exists(ctx context.Context, in WriteRole) (bool, error) {
	o, err := m.find(ctx, in.Named)
	return o != nil, err
}

func (m *Method) readRole(ctx context.Context, _ route.Caller, in Named) (role, error) {
	o, err := m.find(ctx, in)
	if err != nil {
		return role{}, err
	}
	if o == nil {
		return role{}, route.Missing()
	}
	return *o, nil
}

func (m *Method) removeRole(ctx context.Context, _ route.Caller, in Named) (out route.Empty, err error) {
	name, err := auth.NameOf("role", in.Name)
	if err != nil {
		return out, err
	}
	return out, m.roles.Remove(ctx, name)
}
