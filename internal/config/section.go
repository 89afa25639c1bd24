package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/token"
)

// A section is what may stand in a block: keys, and blocks in it. Tables of
// them are the only description of the configuration's language.
//
// The language is HCL version 1, which Vault's files are written in: version 2
// refuses some of them (quoted keys, several keys in a line).
type section struct {
	where  string // for messages; "" is the file itself
	keys   []key
	blocks []block
	any    func(name string, v value) error // takes keys that are not in the list; nil refuses them
	done   func() error                     // checks the keys against each other
}

// key is one setting.
type key struct {
	name string
	set  func(value) error
}

// block is a nested section. With labeled, one label follows its name.
type block struct {
	name    string
	labeled bool
	open    func(label string) (*section, error)
}

// ignored is a setting of Vault's that means nothing here, or is not needed.
func ignored(name, why string) key {
	return key{name, func(value) error { return &notice{why} }}
}

// refused is a setting that must not be passed over.
func refused(name, why string) key {
	return key{name, func(value) error { return errors.New(why) }}
}

// notice is what a setter returns to have a notice written instead of failing.
type notice struct{ why string }

func (n *notice) Error() string { return n.why }

// reader reads one file into the sections.
type reader struct {
	file     string
	env      func(string) string
	problems []Problem
	notices  []string
}

func (r *reader) problem(at token.Pos, field, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.file, at.Line, field, fmt.Sprintf(format, args...)})
}

// read parses a file's content and fills the section.
func (r *reader) read(content []byte, s *section) {
	if strings.TrimSpace(string(content)) == "" {
		r.problem(token.Pos{}, "", "the file is empty; was it written to the end?")
		return
	}
	tree, err := parse(content)
	if err != nil {
		var at *parser.PosError
		if errors.As(err, &at) {
			r.problem(at.Pos, "", "the file cannot be read here: %v", at.Err)
		} else {
			r.problem(token.Pos{}, "", "the file cannot be read: %v; was it written to the end?", err)
		}
		return
	}
	list, ok := tree.Node.(*ast.ObjectList)
	if !ok {
		r.problem(token.Pos{}, "", "the file must hold settings: name = value, and blocks")
		return
	}
	r.fill(s, list.Items, token.Pos{Line: 1})
}

// parse keeps a file that the parser cannot cope with from ending the server
// without a word.
func parse(content []byte) (tree *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("it is no configuration")
		}
	}()
	return hcl.ParseBytes(content)
}

// fill reads the items of a section.
func (r *reader) fill(s *section, items []*ast.ObjectItem, at token.Pos) {
	seen := map[string]bool{}
	for _, item := range items {
		if len(item.Keys) == 0 {
			r.problem(item.Pos(), s.where, "a name is missing")
			continue
		}
		name, at := keyText(item.Keys[0]), item.Keys[0].Token.Pos
		if b := s.block(name); b != nil {
			r.openAll(s, b, item.Keys[1:], item.Val, at)
			continue
		}
		field := join(s.where, name)
		k := s.key(name)
		if k == nil && s.any != nil {
			k = &key{name, func(v value) error { return s.any(name, v) }}
		}
		if k == nil {
			r.problem(at, field, "it is not known; %s", suggest(name, s.names()))
			continue
		}
		if len(item.Keys) > 1 {
			r.problem(at, field, "it is a setting, not a block; write %s = value", name)
			continue
		}
		if seen[name] {
			r.problem(at, field, "it is given twice")
			continue
		}
		seen[name] = true
		r.set(k, value{node: item.Val, env: r.env}, at, field)
	}
	if s.done != nil {
		if err := s.done(); err != nil {
			r.problem(at, s.where, "%v", err)
		}
	}
}

func (r *reader) set(k *key, v value, at token.Pos, field string) {
	err := k.set(v)
	var n *notice
	switch {
	case errors.As(err, &n):
		r.notices = append(r.notices, Problem{r.file, at.Line, field, "ignored: " + n.why}.String())
	case errors.Is(err, os.ErrNotExist):
		r.problem(at, field, "the file is not there: %v", err)
	case err != nil:
		r.problem(at, field, "%v", err)
	}
}

// openAll opens the blocks that one item holds: one in HCL, several where JSON
// lists them or keeps labels as keys.
func (r *reader) openAll(s *section, b *block, labels []*ast.ObjectKey, node ast.Node, at token.Pos) {
	field := join(s.where, b.name)
	switch node := node.(type) {
	case *ast.ListType:
		for _, each := range node.List {
			r.openAll(s, b, labels, each, at)
		}
	case *ast.ObjectType:
		switch {
		case b.labeled && len(labels) == 0:
			if len(node.List.Items) == 0 {
				r.problem(at, field, "its kind is missing; write %s \"kind\" { … }", b.name)
			}
			for _, item := range node.List.Items {
				if _, object := item.Val.(*ast.LiteralType); object || len(item.Keys) == 0 {
					r.problem(at, field, "its kind is missing; write %s \"kind\" { … }", b.name)
					return
				}
				r.openAll(s, b, item.Keys, item.Val, item.Keys[0].Token.Pos)
			}
		case b.labeled:
			r.open(b, keyText(labels[0]), labels[1:], node, at, field+" "+fmt.Sprintf("%q", keyText(labels[0])))
		default:
			r.open(b, "", labels, node, at, field)
		}
	default:
		r.problem(at, field, "it must be a block; write %s { … }", b.name)
	}
}

// open reads one block. Keys beyond the label are the way JSON's parser writes a
// block that holds nothing but blocks.
func (r *reader) open(b *block, label string, rest []*ast.ObjectKey, node *ast.ObjectType, at token.Pos, field string) {
	s, err := b.open(label)
	var n *notice
	if errors.As(err, &n) {
		r.notices = append(r.notices, Problem{r.file, at.Line, field, n.why}.String())
	} else if err != nil {
		r.problem(at, field, "%v", err)
	}
	if s == nil {
		return
	}
	s.where = field
	items := node.List.Items
	if len(rest) > 0 {
		items = []*ast.ObjectItem{{Keys: rest, Val: node}}
	}
	r.fill(s, items, at)
}

func (s *section) key(name string) *key {
	for i := range s.keys {
		if s.keys[i].name == name {
			return &s.keys[i]
		}
	}
	return nil
}

func (s *section) block(name string) *block {
	for i := range s.blocks {
		if s.blocks[i].name == name {
			return &s.blocks[i]
		}
	}
	return nil
}

func (s *section) names() []string {
	var names []string
	for _, k := range s.keys {
		names = append(names, k.name)
	}
	for _, b := range s.blocks {
		names = append(names, b.name)
	}
	return names
}

func keyText(k *ast.ObjectKey) string {
	if text, ok := k.Token.Value().(string); ok {
		return text
	}
	return k.Token.Text
}

func join(where, name string) string {
	if where == "" {
		return name
	}
	return where + ": " + name
}
