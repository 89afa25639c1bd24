package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// yamlOf returns JSON as YAML, with members in their order and numbers in all
// their digits.
func yamlOf(text []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	node, err := yamlNode(dec)
	if err != nil {
		return nil, errAnswer
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(node); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return []byte(escapeControls(out.String())), nil
}

// yamlNode reads one JSON value.
func yamlNode(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := token.(type) {
	case json.Delim:
		node.Kind = yaml.SequenceNode
		if v == '{' {
			node.Kind = yaml.MappingNode
		}
		for dec.More() { // a member's name is a value as well
			item, err := yamlNode(dec)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
		_, err = dec.Token()
		return node, err
	case json.Number:
		node.Tag, node.Value = "!!int", v.String()
		if bytes.ContainsAny([]byte(v), ".eE") {
			node.Tag = "!!float"
		}
	case string:
		err = node.Encode(v)
		if strings.ContainsFunc(v, moves) {
			node.Style = yaml.DoubleQuotedStyle // where they can be escaped
		}
		return node, err
	case bool:
		return node, node.Encode(v)
	case nil:
		node.Tag, node.Value = "!!null", "null"
	}
	return node, nil
}
