package broker

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cofferhq/coffer/internal/identity"
	"github.com/cofferhq/coffer/internal/wire"
)

// expression is what stands between double braces. What somebody does not have is "",
// {} or [], as Vault has it.
type expression struct {
	what  what
	mount string        // accessor of the auth method, of an alias
	key   string        // of metadata
	shift time.Duration // from now
}

type what uint8

const (
	entityID what = iota
	entityName
	entityMetadata // {}
	entityPair
	groupNames // []
	groupIDs   // []
	aliasID
	aliasName
	aliasMetadata // {}
	aliasPair
	aliasCustom // {}
	aliasCustomPair
	timeNow // a number
)

// wholes are the expressions without anything that varies.
var wholes = map[string]what{
	"identity.entity.id": entityID, "identity.entity.name": entityName, "identity.entity.metadata": entityMetadata,
	"identity.entity.groups.names": groupNames, "identity.entity.groups.ids": groupIDs, "time.now": timeNow,
}

// ofAlias are what can be asked of an alias.
var ofAlias = map[string]what{
	"id": aliasID, "name": aliasName, "metadata": aliasMetadata, "custom_metadata": aliasCustom,
}

func parseExpression(text string) (*expression, error) {
	text = strings.TrimSpace(text)
	if w, ok := wholes[text]; ok {
		return &expression{what: w}, nil
	}
	if key, ok := strings.CutPrefix(text, "identity.entity.metadata."); ok && key != "" {
		return &expression{what: entityPair, key: key}, nil
	}
	if rest, ok := strings.CutPrefix(text, "identity.entity.aliases."); ok {
		mount, field, _ := strings.Cut(rest, ".")
		if w, ok := ofAlias[field]; ok && mount != "" {
			return &expression{what: w, mount: mount}, nil
		}
		if key, ok := strings.CutPrefix(field, "metadata."); ok && mount != "" && key != "" {
			return &expression{what: aliasPair, mount: mount, key: key}, nil
		}
		if key, ok := strings.CutPrefix(field, "custom_metadata."); ok && mount != "" && key != "" {
			return &expression{what: aliasCustomPair, mount: mount, key: key}, nil
		}
	}
	if rest, ok := strings.CutPrefix(text, "time.now."); ok {
		sign, duration, _ := strings.Cut(rest, ".")
		d, err := wire.ParseDuration(duration)
		if err == nil && duration != "" && d >= 0 && (sign == "plus" || sign == "minus") {
			if sign == "minus" {
				d = -d
			}
			return &expression{what: timeNow, shift: d}, nil
		}
	}
	return nil, badTemplate("%q names no value; there are identity.entity.{id, name, metadata, metadata.KEY, groups.names, groups.ids}, identity.entity.aliases.ACCESSOR.{id, name, metadata, metadata.KEY, custom_metadata, custom_metadata.KEY}, time.now, time.now.plus.DURATION and time.now.minus.DURATION", clip(text))
}

// plain reports whether the expression is a text or a number.
func (x *expression) plain() bool {
	switch x.what {
	case entityMetadata, groupNames, groupIDs, aliasMetadata, aliasCustom:
		return false
	}
	return true
}

// text returns the value of a plain expression.
func (x *expression) text(who *identity.Who, now time.Time) string {
	e := who.Entity
	switch x.what {
	case entityID:
		return e.ID
	case entityName:
		return e.Name
	case entityPair:
		return e.Metadata[x.key]
	case timeNow:
		return strconv.FormatInt(now.Add(x.shift).Unix(), 10)
	}
	a := x.alias(e)
	switch x.what {
	case aliasID:
		return a.ID
	case aliasName:
		return a.Name
	case aliasPair:
		return a.Metadata[x.key]
	case aliasCustomPair:
		return a.Custom[x.key]
	}
	return ""
}

// json appends the value as JSON.
func (x *expression) json(b []byte, who *identity.Who, now time.Time) []byte {
	switch x.what {
	case timeNow:
		return append(b, x.text(who, now)...)
	case entityMetadata:
		return object(b, who.Entity.Metadata)
	case aliasMetadata:
		return object(b, x.alias(who.Entity).Metadata)
	case aliasCustom:
		return object(b, x.alias(who.Entity).Custom)
	case groupNames:
		return list(b, who.Groups, func(g *identity.Group) string { return g.Name })
	case groupIDs:
		return list(b, who.Groups, func(g *identity.Group) string { return g.ID })
	}
	return quoted(b, x.text(who, now))
}

// alias returns the entity's alias of the mount, an empty one where it has none.
func (x *expression) alias(e *identity.Entity) *identity.Alias {
	i := slices.IndexFunc(e.Aliases, func(a identity.Alias) bool { return a.Mount == x.mount })
	if i < 0 {
		return &identity.Alias{}
	}
	return &e.Aliases[i]
}

func object(b []byte, pairs map[string]string) []byte {
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(pairs)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(quoted(b, key), ':')
		b = quoted(b, pairs[key])
	}
	return append(b, '}')
}

func list(b []byte, groups []*identity.Group, of func(*identity.Group) string) []byte {
	b = append(b, '[')
	for i, g := range groups {
		if i > 0 {
			b = append(b, ',')
		}
		b = quoted(b, of(g))
	}
	return append(b, ']')
}
