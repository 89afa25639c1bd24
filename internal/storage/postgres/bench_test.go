package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
	"github.com/cofferhq/coffer/internal/storage/storagetest"
)

func BenchmarkPut(b *testing.B) {
	server := postgrestest.Start(b)
	url := server.Database(b)
	server.Exec(b, database(b, url), "CREATE TABLE bare (key bytea PRIMARY KEY, value bytea NOT NULL)")
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	config.MaxConns = 128
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	storagetest.BenchPut(b, node(b, Options{URL: url}), func(key string, value []byte) error {
		_, err := pool.Exec(context.Background(), "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", []byte(key), value)
		return err
	})
}

func BenchmarkGet(b *testing.B) {
	storagetest.BenchGet(b, node(b, Options{URL: postgrestest.Start(b).Database(b)}))
}

func BenchmarkWatch(b *testing.B) {
	url := postgrestest.Start(b).Database(b)
	storagetest.BenchWatch(b, node(b, Options{URL: url}), node(b, Options{URL: url}))
}
