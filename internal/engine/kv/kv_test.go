package kv_test

import (
	"testing"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
)

func openV2(t testing.TB) *enginetest.Engine {
	return enginetest.Open(t, kv.V2.Spec(), enginetest.Options{})
}

// seeded is the mount that the examples in the route table start from.
func seeded(t testing.TB) *enginetest.Engine {
	e := openV2(t)
	e.Must(t, 204, "POST", "metadata/app/db", `{"owner":"payments","tags":{"env":"prod"},"custom_metadata":{"team":"payments"}}`)
	e.Must(t, 200, "POST", "data/app/db", `{"data":{"user":"app","password":"p1"}}`)
	e.Must(t, 200, "POST", "data/app/db", `{"data":{"user":"app","password":"p2"}}`)
	e.Must(t, 200, "POST", "data/app/db", `{"data":{"user":"app","password":"p3"},"options":{"stage":"pending"}}`)
	return e
}

func TestExamplesV2(t *testing.T) { enginetest.Examples(t, seeded) }

func TestExamplesV1(t *testing.T) {
	enginetest.Examples(t, func(t testing.TB) *enginetest.Engine {
		e := enginetest.Open(t, kv.V1.Spec(), enginetest.Options{})
		e.Must(t, 204, "POST", "app/db", `{"user":"app","password":"p4"}`)
		return e
	})
}
