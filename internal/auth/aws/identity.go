package aws

import (
	"context"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
)

// identity is how aliases are named, and what of a caller is kept with them.
type identity struct {
	Alias    string       `json:"iam_alias"`
	Metadata wire.Strings `json:"iam_metadata"`
}

// WriteIdentity changes it.
type WriteIdentity struct {
	Alias       *string       `json:"iam_alias" doc:"What an alias is named by: role_id, which all callers of a role share, unique_id, canonical_arn, or full_arn, for which IAM is asked."`
	Metadata    *wire.Strings `json:"iam_metadata" doc:"What metadata has: of account_id, auth_type, canonical_arn, client_arn and client_user_id. default is the first two."`
	EC2Alias    *string       `json:"ec2_alias" doc:"Of logins of EC2 instances, of which there are none: role_id."`
	EC2Metadata *wire.Strings `json:"ec2_metadata" doc:"Of logins of EC2 instances, of which there are none: leave it out."`
}

// ReadIdentity is it.
type ReadIdentity struct {
	identity
	EC2Alias    string       `json:"ec2_alias"`
	EC2Metadata wire.Strings `json:"ec2_metadata"`
}

// What an alias is named by.
const (
	byRoleID   = "role_id"
	byUniqueID = "unique_id"
	byARN      = "canonical_arn"
	byFullARN  = "full_arn"
)

const identityKey = "identity"

var (
	aliasNames  = []string{byRoleID, byUniqueID, byARN, byFullARN}
	metaNames   = []string{"account_id", "auth_type", "canonical_arn", "client_arn", "client_user_id"}
	metaDefault = wire.Strings{"account_id", "auth_type"}
)

func usualIdentity() *identity { return &identity{Alias: byRoleID, Metadata: metaDefault} }

func (in WriteIdentity) apply(i *identity) error {
	if i.Alias == "" {
		*i = *usualIdentity()
	}
	rows.Set(&i.Alias, in.Alias)
	if in.Metadata != nil {
		i.Metadata = wire.Strings{}
		for _, name := range *in.Metadata {
			switch {
			case name == "default":
				i.Metadata = append(i.Metadata, metaDefault...)
			case slices.Contains(metaNames, name):
				i.Metadata = append(i.Metadata, name)
			default:
				return fault.New(fault.Invalid, "iam_metadata: %.50q is not an available field, please select from: %s", name, strings.Join(metaNames, ", "))
			}
		}
		slices.Sort(i.Metadata)
		i.Metadata = slices.Compact(i.Metadata)
	}
	switch {
	case !slices.Contains(aliasNames, i.Alias):
		return fault.New(fault.Invalid, "iam_alias of %.50q not in set of allowed values: %v", i.Alias, aliasNames)
	case in.EC2Alias != nil && *in.EC2Alias != byRoleID, in.EC2Metadata != nil && len(*in.EC2Metadata) > 0:
		return fault.New(fault.Invalid, "ec2_alias and ec2_metadata: EC2 instances do not log in here; leave them out")
	}
	return nil
}

// naming returns how aliases are named.
func (m *Method) naming(ctx context.Context) (*identity, error) {
	i, err := m.identity.Lately(ctx, identityKey)
	if err == nil && i == nil {
		i = usualIdentity()
	}
	return i, err
}

func (m *Method) readIdentity(ctx context.Context, _ route.Caller, _ route.Nothing) (ReadIdentity, error) {
	i, err := m.naming(ctx)
	if err != nil {
		return ReadIdentity{}, err
	}
	return ReadIdentity{*i, byRoleID, wire.Strings{}}, nil
}

func (m *Method) writeIdentity(ctx context.Context, _ route.Caller, in WriteIdentity) (route.Empty, error) {
	return route.Empty{}, m.identity.Change(ctx, identityKey, in.apply)
}
