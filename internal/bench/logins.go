package main

import (
	"encoding/json"
	"fmt"
)

// measureLogins compares AppRole logins with durable writes of secrets.
func measureLogins(s *server) error {
	fmt.Println("\nAppRole logins, 32 clients")
	if _, err := s.root.do("POST", "/v1/sys/auth/approle", []byte(`{"type":"approle"}`)); err != nil {
		return err
	}
	if _, err := s.root.do("POST", "/v1/auth/approle/role/bench", []byte(`{"role_id":"bench","token_ttl":"1h"}`)); err != nil {
		return err
	}
	answer, err := s.root.do("POST", "/v1/auth/approle/role/bench/secret-id", nil)
	if err != nil {
		return err
	}
	var made struct {
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if err := json.Unmarshal(answer, &made); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"role_id": "bench", "secret_id": made.Data.SecretID})
	if err != nil {
		return err
	}
	stranger := *s.user
	stranger.token = ""
	var logins, writes result
	for range *rounds {
		if err := logins.load(&stranger, 32, *slice, func(_, _ int) error {
			_, err := stranger.do("POST", "/v1/auth/approle/login", body)
			return err
		}); err != nil {
			return err
		}
		if err := writes.load(s.user, 32, *slice, func(c, n int) error {
			_, err := s.user.do("POST", fmt.Sprintf("/v1/secret/data/bench/w%d-%d", c, n%50), payload)
			return err
		}); err != nil {
			return err
		}
	}
	fmt.Printf("  logins   %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", logins.perSecond(), logins.at(.5), logins.at(.99), logins.perRequest())
	fmt.Printf("  writes   %8.0f/s  p50 %8v  p99 %8v  processor %8v\n", writes.perSecond(), writes.at(.5), writes.at(.99), writes.perRequest())
	if logins.perSecond() >= 10_000 {
		verdict("logins/s", logins.perSecond(), 10_000, true, "")
		return nil
	}
	verdict("logins/s, of durable writes/s", logins.perSecond()/writes.perSecond(), 0.5, true, "")
	return nil
}
