package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cofferhq/coffer/client"
)

// loginWaits is the answer to a login that needs a second factor.
type loginWaits struct {
	Auth struct {
		MFA *struct {
			ID          string `json:"mfa_request_id"`
			Constraints map[string]struct {
				Any []struct {
					Type string `json:"type"`
					ID   string `json:"id"`
					Name string `json:"name"`
				} `json:"any"`
			} `json:"mfa_constraints"`
		} `json:"mfa_requirement"`
	} `json:"auth"`
}

// proveFactor proves what a login needs besides: by a passcode that was given, or that
// is asked for.
func (s *shell) proveFactor(ctx context.Context, f *loginFlags, answer *client.Response) (*client.Response, error) {
	var waits loginWaits
	if err := json.Unmarshal(answer.Body, &waits); err != nil || waits.Auth.MFA == nil {
		return nil, fmt.Errorf("the server's answer holds no token")
	}
	payload := map[string][]client.Secret{}
	for _, rule := range slices.Sorted(maps.Keys(waits.Auth.MFA.Constraints)) {
		any := waits.Auth.MFA.Constraints[rule].Any
		if len(any) == 0 || payload[any[0].ID] != nil {
			continue
		}
		method := any[0]
		passcode := f.passcode
		if passcode == "-" {
			text, err := s.fileOrStdin("-")
			if err != nil {
				return nil, err
			}
			passcode = text
		}
		if passcode == "" {
			if s.Prompt == nil || s.global.nonInteractive {
				return nil, usage("the login needs a second factor; give its passcode with -mfa-passcode=- on standard input")
			}
			name := method.Name
			if name == "" {
				name = method.Type
			}
			var err error
			if passcode, err = s.Prompt("Passcode of " + name + " (will be hidden): "); err != nil {
				return nil, err
			}
		}
		payload[method.ID] = []client.Secret{client.Secret(strings.TrimSpace(passcode))}
	}
	body := struct {
		ID      client.Secret              `json:"mfa_request_id"`
		Payload map[string][]client.Secret `json:"mfa_payload"`
	}{client.Secret(waits.Auth.MFA.ID), payload}
	return s.do(ctx, client.Request{Method: "POST", Path: "sys/mfa/validate", Body: body, Anonymous: true, Once: true})
}
