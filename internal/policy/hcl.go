package policy

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	hclstrconv "github.com/hashicorp/hcl/hcl/strconv"
	"github.com/hashicorp/hcl/hcl/token"
)

// readHCL reads a policy in HCL version 1, the language of Vault's policies.
func readHCL(text string) (syntax, error) {
	if err := checkNesting(text); err != nil {
		return syntax{}, err
	}
	// What is set twice is refused by those who know what it is, with its line.
	file, err := parser.ParseDontErrorOnDuplicateKeys([]byte(text))
	if err != nil {
		return syntax{}, hclError(err)
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return syntax{}, at(1, "a policy is a list of path blocks")
	}
	return hclObject(list, 1)
}

// checkNesting refuses deep nesting before the parser, which recurses, sees it,
// and what the scanner does not understand.
func checkNesting(text string) (err error) {
	s := scanner.New([]byte(strings.ReplaceAll(text, "\r\n", "\n")))
	s.Error = func(pos token.Pos, msg string) {
		if err == nil {
			err = at(pos.Line, "%s", msg)
		}
	}
	for depth := 0; err == nil; {
		t := s.Scan()
		switch t.Type {
		case token.EOF:
			return err
		case token.LBRACE, token.LBRACK:
			if depth++; depth > MaxDepth {
				return at(t.Pos.Line, "the policy nests deeper than %d levels", MaxDepth)
			}
		case token.RBRACE, token.RBRACK:
			depth--
		}
	}
	return err
}

func hclError(err error) error {
	var pos *parser.PosError
	if errors.As(err, &pos) {
		return at(pos.Pos.Line, "%v", pos.Err)
	}
	return at(1, "%v", err)
}

func hclObject(list *ast.ObjectList, line int) (syntax, error) {
	s := syntax{line: line, kind: objectSyntax}
	for _, item := range list.Items {
		f, err := hclField(item)
		if err != nil {
			return syntax{}, err
		}
		s.fields = append(s.fields, f)
	}
	return s, nil
}

func hclField(item *ast.ObjectItem) (field, error) {
	f := field{line: item.Pos().Line}
	for i, key := range item.Keys {
		name := key.Token.Text
		if key.Token.Type == token.STRING {
			var err error
			if name, err = hclString(key.Token); err != nil {
				return field{}, err
			}
		}
		if i == 0 {
			f.name = name
			continue
		}
		f.labels = append(f.labels, name)
	}
	var err error
	f.value, err = hclValue(item.Val)
	return f, err
}

func hclValue(node ast.Node) (syntax, error) {
	switch n := node.(type) {
	case *ast.LiteralType:
		return hclLiteral(n.Token)
	case *ast.ListType:
		s := syntax{line: n.Pos().Line, kind: listSyntax}
		for _, item := range n.List {
			value, err := hclValue(item)
			if err != nil {
				return syntax{}, err
			}
			s.list = append(s.list, value)
		}
		return s, nil
	case *ast.ObjectType:
		return hclObject(n.List, n.Pos().Line)
	}
	return syntax{}, at(node.Pos().Line, "this is not a value")
}

func hclLiteral(t token.Token) (syntax, error) {
	s := syntax{line: t.Pos.Line, text: t.Text}
	var err error
	switch t.Type {
	case token.BOOL:
		s.kind = boolSyntax
	case token.NUMBER, token.FLOAT:
		s.kind = numberSyntax
		s.text, err = hclNumber(t)
	case token.STRING:
		s.kind = stringSyntax
		s.text, err = hclString(t)
	case token.HEREDOC:
		return s, at(s.line, "a heredoc has no use in a policy; write a string")
	default:
		return s, at(s.line, "this is not a value")
	}
	return s, err
}

func hclString(t token.Token) (string, error) {
	text, err := hclstrconv.Unquote(t.Text)
	if err != nil {
		return "", at(t.Pos.Line, "the string %s is not quoted right", t.Text)
	}
	return text, nil
}

// hclNumber rewrites a number as JSON: HCL also has 0x10 and 010.
func hclNumber(t token.Token) (string, error) {
	if n, err := strconv.ParseInt(t.Text, 0, 64); err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	f, err := strconv.ParseFloat(t.Text, 64)
	if err != nil || math.IsInf(f, 0) || t.Type == token.NUMBER && !json.Valid([]byte(t.Text)) {
		return "", at(t.Pos.Line, "the number %s cannot be read", t.Text)
	}
	text, err := json.Marshal(f)
	if err != nil {
		return "", at(t.Pos.Line, "the number %s cannot be read", t.Text)
	}
	return string(text), nil
}
