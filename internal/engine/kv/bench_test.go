package kv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json"
)

// kilobyte is a secret of 1 KiB.
var kilobyte = `{"user":"app","password":"` + strings.Repeat("x", 990) + `"}`

// filled is a mount of n secrets, each with ten versions.
func filled(b *testing.B, n int) (*enginetest.Engine, *kv.Store, []string) {
	e := openV2(b)
	paths := make([]string, n)
	for i := range paths {
		paths[i] = fmt.Sprintf("team%d/app/%d", i%10, i)
		for range 10 {
			e.Must(b, 200, "POST", "data/"+paths[i], `{"data":`+kilobyte+`}`)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	return e, e.State.(*kv.Store), paths
}

func BenchmarkRead(b *testing.B) {
	_, store, paths := filled(b, 100)
	by := route.Caller{DisplayName: "bench"}
	for i := 0; b.Loop(); i++ {
		if _, err := store.Read(context.Background(), by, kv.ReadRequest{Path: paths[i%len(paths)]}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadParallel(b *testing.B) {
	_, store, paths := filled(b, 100)
	by := route.Caller{DisplayName: "bench"}
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			if _, err := store.Read(context.Background(), by, kv.ReadRequest{Path: paths[i%len(paths)]}); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkReadEncoded(b *testing.B) {
	_, store, paths := filled(b, 100)
	by := route.Caller{DisplayName: "bench"}
	for i := 0; b.Loop(); i++ {
		out, err := store.Read(context.Background(), by, kv.ReadRequest{Path: paths[i%len(paths)]})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := json.Marshal(out, json.Deterministic(true)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	_, store, paths := filled(b, 100)
	by := route.Caller{DisplayName: "bench"}
	for i := 0; b.Loop(); i++ {
		if _, err := store.Write(context.Background(), by, kv.WriteRequest{Path: paths[i%len(paths)], Data: wire.Object(kilobyte)}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListHundredOfManyNames(b *testing.B) {
	e := openV2(b)
	for i := range 20_000 {
		e.Must(b, 204, "POST", fmt.Sprintf("metadata/s/%05d", i), `{"kind":"k"}`)
	}
	store := e.State.(*kv.Store)
	b.ReportAllocs()
	for b.Loop() {
		in := kv.ListRequest{Path: "s/", Page: route.Page{After: "10000", Limit: 100}}
		if out, err := store.List(context.Background(), route.Caller{}, in); err != nil || len(out.Keys) != 100 {
			b.Fatal(err)
		}
	}
}
