package app_test

import (
	"testing"

	"github.com/cofferhq/coffer/internal/app/apptest"
)

func TestRestart(t *testing.T) {
	s := apptest.Start(t, "")
	s.Must(t, 200, "POST", "secret/data/app/db", `{"data":{"password":"p1"}}`)
	s.Stop(t)
	s.Run(t)
	var out struct {
		Data map[string]string `json:"data"`
	}
	s.Must(t, 200, "GET", "secret/data/app/db", "").Into(t, &out)
	if out.Data["password"] != "p1" {
		t.Errorf("read %v", out)
	}
}
