package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cofferhq/coffer/internal/storage"
)

// Kind declares the engine.
var Kind = storage.Kind{
	Name: "postgres",
	Also: []string{"postgresql"},
	Doc: "A PostgreSQL database (13 or later), for any number of servers. " +
		"connection_url: how to reach it, as a URL or as key=value words; several hosts may be named, and the one that accepts writes is used. " +
		"COFFER_PG_CONNECTION_URL or VAULT_PG_CONNECTION_URL in the environment counts before it. " +
		"table: what the names of the tables begin with (coffer), after a schema and a point if wanted. " +
		"max_parallel: connections for reading (20); there are two more. " +
		"max_idle_connections: how many of them stay open when unused (2). " +
		"request_timeout: after how long without an answer the database counts as away (5s). " +
		"history: how long changes are kept for other servers that were away (1h). " +
		"history_size: how many bytes of changes are kept at most (64MiB).",
	Open: func(ctx context.Context, settings map[string]string, log *slog.Logger) (storage.Engine, error) {
		o, err := parse(settings, os.Getenv)
		if err != nil {
			return nil, err
		}
		o.Logger = log
		return open(ctx, o)
	},
}

// open returns no engine, not even one that is nil, with an error.
func open(ctx context.Context, o Options) (storage.Engine, error) {
	e, err := Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Options say where and how to open a store.
type Options struct {
	URL            string        // a URL or key=value words; holds a password
	Table          string        // what table names begin with; "" is coffer
	MaxParallel    int           // connections for snapshots; 0 is 20
	MaxIdle        int           // of them, kept open; 0 is 2
	RequestTimeout time.Duration // 0 is 5 s
	History        time.Duration // how long changes are kept; 0 is 1 h
	HistorySize    int64         // bytes of changes kept; 0 is 64 MiB
	Logger         *slog.Logger  // nil is slog.Default

	gate       func()      // called by tests between the lock of a commit and its end
	migrations []migration // replaced by tests
}

func (o Options) withDefaults() Options {
	if o.Table == "" {
		o.Table = "coffer"
	}
	if o.MaxParallel == 0 {
		o.MaxParallel = 20
	}
	if o.MaxIdle == 0 {
		o.MaxIdle = min(2, o.MaxParallel)
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 5 * time.Second
	}
	if o.History == 0 {
		o.History = time.Hour
	}
	if o.HistorySize == 0 {
		o.HistorySize = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.migrations == nil {
		o.migrations = migrations
	}
	return o
}

const settingNames = "connection_url, table, max_parallel, max_idle_connections, request_timeout, history and history_size"

// foreign are settings of Vault's engine that are not Coffer's, and why.
var foreign = map[string]string{
	"ha_enabled":                 "every server is active; remove it",
	"ha_table":                   "every server is active; remove it",
	"skip_create_table":          "the tables are made when they are not there; remove it",
	"max_connect_retries":        "request_timeout bounds how long is tried; remove it",
	"upsert_function":            "no such function is needed; remove it",
	"auth_mode":                  "put the way to authenticate into connection_url; remove it",
	"disable_required_state_key": "there is no such state; remove it",
}

func parse(settings map[string]string, getenv func(string) string) (Options, error) {
	var o Options
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := o.set(name, settings[name]); err != nil {
			return Options{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, variable := range []string{"VAULT_PG_CONNECTION_URL", "COFFER_PG_CONNECTION_URL"} {
		if text := getenv(variable); text != "" {
			o.URL = text
		}
	}
	if o.URL == "" {
		return Options{}, errors.New("connection_url: storage \"postgres\" needs to be told its database, here or in COFFER_PG_CONNECTION_URL")
	}
	if o.MaxIdle > o.MaxParallel && o.MaxParallel > 0 {
		return Options{}, errors.New("max_idle_connections: it is more than max_parallel")
	}
	_, err := o.poolConfig()
	return o, err
}

func (o *Options) set(name, value string) (err error) {
	switch name {
	case "connection_url":
		o.URL = value
	case "table":
		if !tableName.MatchString(value) {
			return fmt.Errorf("%q is no name of a table: lower-case letters, digits and _, at most 40, after a schema and a point if wanted", value)
		}
		o.Table = value
	case "max_parallel":
		o.MaxParallel, err = parseCount(value)
	case "max_idle_connections":
		o.MaxIdle, err = parseCount(value)
	case "request_timeout":
		o.RequestTimeout, err = parseDuration(value, 100*time.Millisecond)
	case "history":
		o.History, err = parseDuration(value, time.Second)
	case "history_size":
		o.HistorySize, err = parseSize(value)
	default:
		if why, ok := foreign[name]; ok {
			return fmt.Errorf("storage \"postgres\" has no such setting: %s", why)
		}
		return fmt.Errorf("storage \"postgres\" has no such setting; it has %s", settingNames)
	}
	return err
}

var tableName = regexp.MustCompile(`^([a-z_][a-z0-9_]{0,39}\.)?[a-z_][a-z0-9_]{0,39}$`)

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < 1 || n > 10_000 {
		return 0, fmt.Errorf("%q is not a number from 1 to 10000", text)
	}
	return n, nil
}

// parseDuration reads a duration such as 5s, or a whole number of seconds.
func parseDuration(text string, least time.Duration) (time.Duration, error) {
	text = strings.TrimSpace(text)
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		text = strconv.FormatUint(n, 10) + "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 5s", text)
	}
	if d < least {
		return 0, fmt.Errorf("%v is less than %v", d, least)
	}
	return d, nil
}

// parseSize reads bytes, or a whole number of KiB, MiB or GiB; at least 1 MiB.
func parseSize(text string) (int64, error) {
	number, unit := strings.TrimSpace(text), int64(1)
	for suffix, factor := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if rest, ok := strings.CutSuffix(number, suffix); ok {
			number, unit = strings.TrimSpace(rest), factor
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > 1<<50/unit {
		return 0, fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	if n*unit < 1<<20 {
		return 0, fmt.Errorf("%q is less than 1MiB", text)
	}
	return n * unit, nil
}

// poolConfig returns how to connect. Its error never repeats the URL, parts of
// which may be a password.
func (o Options) poolConfig() (*pgxpool.Config, error) {
	o = o.withDefaults()
	c, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("connection_url: it is neither a URL such as postgres://user:password@host:5432/database " +
			"nor words such as host=... user=...; a password in a URL must be percent-encoded, and its options must be PostgreSQL's " +
			"(the text is not shown because it may hold a password)")
	}
	c.MaxConns, c.MinIdleConns = int32(o.MaxParallel), int32(o.MaxIdle)
	c.MaxConnIdleTime = time.Minute
	conn := c.ConnConfig
	if conn.ValidateConnect == nil { // of several hosts, the one that can be written
		conn.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// One host that does not answer must leave time for the next.
	most := max(o.RequestTimeout/time.Duration(2+len(conn.Fallbacks)), 100*time.Millisecond)
	if conn.ConnectTimeout == 0 || conn.ConnectTimeout > most {
		conn.ConnectTimeout = most
	}
	if _, ok := conn.RuntimeParams["application_name"]; !ok {
		conn.RuntimeParams["application_name"] = "coffer"
	}
	return c, nil
}
