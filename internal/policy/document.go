package policy

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/cofferhq/coffer/internal/fault"
)

// Node is a value of a document, and where it stands. Documents are the files that
// stand beside policies (their tests, the mounts they are written for) in the
// policies' own two languages and under the same limits.
type Node struct {
	Line   int
	Kind   NodeKind
	Text   string  // of a string: itself; of a number or a bool: as JSON
	List   []Node  // of a list
	Fields []Field // of an object, in order; names may repeat
}

// Field is a named value of an object. In HCL a block has labels, too.
type Field struct {
	Line   int
	Name   string
	Labels []string
	Value  Node
}

// NodeKind is the sort of a value.
type NodeKind uint8

// The sorts of values.
const (
	NullNode   = NodeKind(nullSyntax)
	BoolNode   = NodeKind(boolSyntax)
	NumberNode = NodeKind(numberSyntax)
	StringNode = NodeKind(stringSyntax)
	ListNode   = NodeKind(listSyntax)
	ObjectNode = NodeKind(objectSyntax)
)

// String returns the sort as it is said in a message: "a list".
func (k NodeKind) String() string { return syntaxKind(k).String() }

// ReadDocument reads HCL or JSON into its root, an object. An error is
// fault.Invalid and begins with the line.
func ReadDocument(text string) (Node, error) {
	if len(text) > MaxSource {
		return Node{}, at(1, "the text has %d bytes, more than the %d allowed", len(text), MaxSource)
	}
	if !utf8.ValidString(text) {
		return Node{}, at(1, "the text is not valid UTF-8")
	}
	read := readHCL
	if isJSON(text) {
		read = readJSON
	}
	root, err := read(text)
	if err != nil {
		return Node{}, err
	}
	return root.node(), nil
}

func (s *syntax) node() Node {
	n := Node{Line: s.line, Kind: NodeKind(s.kind), Text: s.text}
	for i := range s.list {
		n.List = append(n.List, s.list[i].node())
	}
	for i := range s.fields {
		f := &s.fields[i]
		n.Fields = append(n.Fields, Field{Line: f.line, Name: f.name, Labels: f.labels, Value: f.value.node()})
	}
	return n
}

// JSON returns the value as JSON, members in their order. Blocks with labels have no
// place in it, nor has a name that stands twice: fault.Invalid.
func (n Node) JSON() ([]byte, error) {
	var out bytes.Buffer
	if err := n.write(&out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (n Node) write(out *bytes.Buffer) error {
	switch n.Kind {
	case NullNode:
		out.WriteString("null")
	case StringNode:
		return writeText(out, n.Text)
	case ListNode:
		out.WriteByte('[')
		for i, item := range n.List {
			if i > 0 {
				out.WriteByte(',')
			}
			if err := item.write(out); err != nil {
				return err
			}
		}
		out.WriteByte(']')
	case ObjectNode:
		return n.writeFields(out)
	default:
		out.WriteString(n.Text)
	}
	return nil
}

func (n Node) writeFields(out *bytes.Buffer) error {
	seen := map[string]bool{}
	out.WriteByte('{')
	for i, f := range n.Fields {
		switch {
		case len(f.Labels) > 0:
			return fault.New(fault.Invalid, "line %d: %s has a label, which means nothing here; write %s = …", f.Line, f.Name, f.Name)
		case seen[f.Name]:
			return fault.New(fault.Invalid, "line %d: %s is set twice", f.Line, f.Name)
		}
		seen[f.Name] = true
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeText(out, f.Name); err != nil {
			return err
		}
		out.WriteByte(':')
		if err := f.Value.write(out); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

func writeText(out *bytes.Buffer, text string) error {
	quoted, err := json.Marshal(text)
	out.Write(quoted)
	return err
}
