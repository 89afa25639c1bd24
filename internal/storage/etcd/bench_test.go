package etcd

import (
	"context"
	"testing"

	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

func BenchmarkPut(b *testing.B) {
	c := etcdtest.Start(b, 3)
	client := c.Client(b)
	storagetest.BenchPut(b, node(b, Options{Endpoints: c.Endpoints()}), func(key string, value []byte) error {
		_, err := client.Put(context.Background(), "bare/"+key, string(value))
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	storagetest.BenchGet(b, node(b, Options{Endpoints: etcdtest.Start(b, 3).Endpoints()}))
}

func BenchmarkWatch(b *testing.B) {
	o := Options{Endpoints: etcdtest.Start(b, 3).Endpoints()}
	storagetest.BenchWatch(b, node(b, o), node(b, o))
}
