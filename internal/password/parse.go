package password

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/token"

	"github.com/cofferhq/coffer/internal/fault"
)

// Parse reads a policy in HCL or JSON. What is wrong with it is a fault of kind
// Invalid. Every policy that is read can be met.
//
// Keys that it does not know are refused, where Vault passes over them: of a rule
// with min_chars in place of min-chars nothing would be needed.
func Parse(text string) (*Policy, error) {
	p, err := parse(text)
	if err != nil {
		return nil, fault.New(fault.Invalid, "invalid password policy: %v", err)
	}
	return p, nil
}

func parse(text string) (*Policy, error) {
	if len(text) > MaxSource {
		return nil, fmt.Errorf("the text has %d bytes, more than the %d allowed", len(text), MaxSource)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("the text is not valid UTF-8")
	}
	if err := checkNesting(text); err != nil {
		return nil, err
	}
	list, err := syntax(text)
	if err != nil {
		return nil, err
	}
	p, sized := &Policy{}, false
	for _, item := range list.Items {
		switch key := nameOf(item); key {
		case "length":
			if sized {
				return nil, at(item, "length is set twice")
			}
			sized = true
			if p.Length, err = number(item); err != nil {
				return nil, err
			}
		case "rule":
			if err := p.readRule(item.Keys[1:], item.Val); err != nil {
				return nil, err
			}
		default:
			return nil, at(item, "%q is not a key of a policy; there are length and rule", key)
		}
	}
	p.index()
	return p, p.check()
}

// syntax reads HCL or JSON. The library panics on some texts that are neither.
func syntax(text string) (list *ast.ObjectList, err error) {
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("the text is neither HCL nor JSON")
		}
	}()
	file, err := hcl.Parse(text)
	if err != nil {
		return nil, err
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, fmt.Errorf("a policy is a length and rules")
	}
	return list, nil
}

// checkNesting refuses deep nesting before the parser, which recurses, sees it.
func checkNesting(text string) error {
	s, depth := scanner.New([]byte(strings.ReplaceAll(text, "\r\n", "\n"))), 0
	s.Error = func(token.Pos, string) {} // the parser says it, with its line
	for {
		switch t := s.Scan(); t.Type {
		case token.EOF:
			return nil
		case token.LBRACE, token.LBRACK:
			if depth++; depth > maxDepth {
				return fmt.Errorf("line %d: the policy nests deeper than %d levels", t.Pos.Line, maxDepth)
			}
		case token.RBRACE, token.RBRACK:
			depth--
		}
	}
}

// readRule reads a block of HCL, or what JSON has in its place: objects by kind, or
// a list of them.
func (p *Policy) readRule(labels []*ast.ObjectKey, val ast.Node) error {
	switch val := val.(type) {
	case *ast.ListType:
		for _, one := range val.List {
			if err := p.readRule(labels, one); err != nil {
				return err
			}
		}
		return nil
	case *ast.ObjectType:
		if len(labels) == 1 {
			return p.readCharset(fmt.Sprint(labels[0].Token.Value()), val)
		}
		if len(labels) == 0 {
			for _, item := range val.List.Items {
				if err := p.readRule(item.Keys, item.Val); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return at(val, `a rule is written rule "charset" { charset = "…" min-chars = 1 }`)
}

func (p *Policy) readCharset(kind string, body *ast.ObjectType) error {
	if kind != "charset" {
		return at(body, "there is no rule %q; there is charset", kind)
	}
	if len(p.Rules) >= MaxRules {
		return at(body, "there are more than the %d rules allowed", MaxRules)
	}
	var rule Rule
	seen := map[string]bool{}
	for _, item := range body.List.Items {
		key := nameOf(item)
		if seen[key] {
			return at(item, "%s is set twice", key)
		}
		seen[key] = true
		var err error
		switch key {
		case "charset":
			rule.Charset, err = characters(item)
		case "min-chars":
			rule.Min, err = number(item)
		default:
			err = at(item, "%q is not a key of a charset rule; there are charset and min-chars", key)
		}
		if err != nil {
			return err
		}
	}
	if len(rule.Charset) == 0 {
		return at(body, "the charset is empty")
	}
	p.Rules = append(p.Rules, rule)
	return nil
}

// nameOf is an item's name.
func nameOf(item *ast.ObjectItem) string {
	if len(item.Keys) == 0 {
		return ""
	}
	return fmt.Sprint(item.Keys[0].Token.Value())
}

// literal returns the value of an item that has neither labels nor a block.
func literal(item *ast.ObjectItem) (token.Token, bool) {
	l, ok := item.Val.(*ast.LiteralType)
	if !ok || len(item.Keys) != 1 {
		return token.Token{}, false
	}
	return l.Token, true
}

func number(item *ast.ObjectItem) (int, error) {
	l, ok := literal(item)
	n, err := strconv.Atoi(strings.Trim(l.Text, `"`))
	if !ok || err != nil || n < 0 {
		return 0, at(item, "%s must be a whole number that is not negative", nameOf(item))
	}
	return n, nil
}

func characters(item *ast.ObjectItem) ([]rune, error) {
	l, ok := literal(item)
	if !ok || l.Type != token.STRING && l.Type != token.HEREDOC {
		return nil, at(item, "charset must be a string")
	}
	text, ok := l.Value().(string)
	if !ok || text == "" {
		return nil, at(item, "the charset is empty")
	}
	return distinct([]rune(text)), nil
}

// at says where in the text something is wrong; JSON has no lines.
func at(node ast.Node, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if line := node.Pos().Line; line > 0 {
		return fmt.Errorf("line %d: %s", line, message)
	}
	return fmt.Errorf("%s", message)
}
