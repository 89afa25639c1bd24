package plan

import (
	"context"
	"encoding/json"

	"github.com/cofferhq/coffer/client"
)

// server is the server that a directory is compared with.
type server struct {
	client   *client.Client
	mounts   map[string]map[string]json.RawMessage // by path, "auth/" included; fields as mountItem.want has them
	policies []string
}

// reach reads what the server has of mounts, and the names of its policies.
func reach(ctx context.Context, c *client.Client) (*server, error) {
	s := &server{client: c}
	if err := s.readMounts(ctx); err != nil {
		return nil, err
	}
	var err error
	s.policies, err = c.Sys().Policies(ctx)
	return s, err
}

func (s *server) readMounts(ctx context.Context) error {
	s.mounts = map[string]map[string]json.RawMessage{}
	for prefix, table := range map[string]string{"": "sys/mounts", "auth/": "sys/auth"} {
		var list map[string]struct {
			Type        string                     `json:"type"`
			Description string                     `json:"description"`
			Options     map[string]json.RawMessage `json:"options"`
			Config      map[string]json.RawMessage `json:"config"`
		}
		if err := s.get(ctx, table, &list); err != nil {
			return err
		}
		for path, m := range list {
			fields := map[string]json.RawMessage{"type": text(m.Type), "description": text(m.Description)}
			for name, value := range m.Options {
				fields["options."+name] = value
			}
			for name, value := range m.Config {
				fields["config."+name] = value
			}
			s.mounts[prefix+path] = fields
		}
	}
	return nil
}

func (s *server) get(ctx context.Context, path string, into any) error {
	answer, err := s.client.Do(ctx, client.Request{Path: path, WrapTTL: -1})
	if err != nil {
		return err
	}
	return answer.Decode(into)
}

func (s *server) send(ctx context.Context, method, path string, body any) error {
	_, err := s.client.Do(ctx, client.Request{Method: method, Path: path, Body: body, WrapTTL: -1})
	return err
}
