package kv

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// tree is JSON text taken apart as far as its objects go. Everything else keeps
// its text, so that numbers stay as they were written.
type tree struct {
	leaf    jsontext.Value // what is no object; nil for an object
	members []member       // in order
}

type member struct {
	name string
	tree tree
}

// parseTree reads valid JSON, nested no deeper than package wire accepts.
func parseTree(text []byte) (tree, error) {
	return readTree(jsontext.NewDecoder(bytes.NewBuffer(text)))
}

func readTree(d *jsontext.Decoder) (tree, error) {
	if d.PeekKind() != '{' {
		v, err := d.ReadValue()
		return tree{leaf: v.Clone()}, err
	}
	if _, err := d.ReadToken(); err != nil {
		return tree{}, err
	}
	t := tree{members: []member{}}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return tree{}, err
		}
		key := name.String()
		sub, err := readTree(d)
		if err != nil {
			return tree{}, err
		}
		t.members = append(t.members, member{key, sub})
	}
	_, err := d.ReadToken()
	return t, err
}

func (t *tree) isNull() bool { return t.leaf.Kind() == 'n' }

// index returns where each member stands.
func (t *tree) index() map[string]int {
	out := make(map[string]int, len(t.members))
	for i := range t.members {
		out[t.members[i].name] = i
	}
	return out
}

// merge applies a JSON merge patch (RFC 7396, section 2): null removes a
// member, an object is merged, and anything else replaces.
func (t tree) merge(patch tree) tree {
	if patch.leaf != nil {
		return patch
	}
	if t.leaf != nil {
		t = tree{members: []member{}}
	}
	at := t.index()
	removed := map[int]bool{}
	for _, p := range patch.members {
		i, there := at[p.name]
		switch {
		case p.tree.isNull() && there:
			removed[i] = true
		case p.tree.isNull():
		case there:
			t.members[i].tree = t.members[i].tree.merge(p.tree)
		default:
			t.members = append(t.members, member{p.name, tree{leaf: jsontext.Value("null")}.merge(p.tree)})
		}
	}
	if len(removed) == 0 {
		return t
	}
	kept := make([]member, 0, len(t.members))
	for i := range t.members {
		if !removed[i] {
			kept = append(kept, t.members[i])
		}
	}
	t.members = kept
	return t
}

// keys replaces every value by null, and everything deeper than depth levels
// when depth is not 0. An empty object is a value.
func (t tree) keys(depth int) tree {
	null := tree{leaf: jsontext.Value("null")}
	out := tree{members: make([]member, 0, len(t.members))}
	for _, m := range t.members {
		sub := null
		if len(m.tree.members) > 0 && depth != 1 {
			sub = m.tree.keys(max(depth-1, 0))
		}
		out.members = append(out.members, member{m.name, sub})
	}
	return out
}

// append writes the text of the tree.
func (t *tree) append(b []byte) []byte {
	if t.leaf != nil {
		return append(b, t.leaf...)
	}
	b = append(b, '{')
	for i := range t.members {
		if i > 0 {
			b = append(b, ',')
		}
		// The name was decoded from valid JSON, so it always quotes.
		b, _ = jsontext.AppendQuote(b, t.members[i].name)
		b = append(b, ':')
		b = t.members[i].tree.append(b)
	}
	return append(b, '}')
}

// mergeText applies a merge patch to the text of an object.
func mergeText(target, patch []byte) ([]byte, error) {
	t, err := parseTree(target)
	if err != nil {
		return nil, err
	}
	p, err := parseTree(patch)
	if err != nil {
		return nil, err
	}
	t = t.merge(p)
	return t.append(nil), nil
}
