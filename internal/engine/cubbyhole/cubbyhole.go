// Package cubbyhole is the mount in which every token has a place of its own
// that nobody else sees, root included, and that ends with the token. It is not
// a place to keep secrets, and has neither versions nor metadata.
package cubbyhole

import (
	"context"
	"errors"
	"strings"

	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
	"github.com/go-json-experiment/json/jsontext"
)

// Kind is the engine.
var Kind = engine.Kind[Options, *Store]{
	Name: "cubbyhole", Doc: "A place of its own for every token, which ends with it.",
	Class: engine.System, Open: open, Routes: routes,
}

// Options of the mount: there are none.
type Options struct{}

// Store is what all tokens keep. A value lies under t/TOKEN/PATH, by the token's
// storage id.
type Store struct {
	engine     storage.Engine
	print      func([]byte) string
	maxPayload int
}

func open(_ context.Context, env engine.Env, _ Options) (*Store, error) {
	return &Store{engine: env.Storage, print: env.Fingerprint, maxPayload: env.MaxPayload}, nil
}

var routes = []route.Route[*Store]{
	route.New("GET", "{path...}", "Read a value that the token keeps.", (*Store).Read,
		route.Shows("one", "", `{"key":"value"}`)),
	route.New("LIST", "{path...}", "List the names in a folder that the token keeps.", (*Store).List,
		route.Shows("", "", `{"keys":["one"]}`)),
	route.New("POST", "{path...}", "Keep a value for as long as the token lives; it replaces the one there is.", (*Store).Write,
		route.Shows("two", `{"key":"value"}`, "")),
	route.New("DELETE", "{path...}", "Delete a value that the token keeps.", (*Store).Delete,
		route.Shows("one", "", "")),
}

// Request names a value.
type Request struct {
	Path string `path:"path" doc:"Path of the value."`
}

// ListRequest names a folder and a page of it.
type ListRequest struct {
	Path string `path:"path" doc:"Path of the folder; nothing is the root."`
	route.Page
}

// WriteRequest is a value: the whole body.
type WriteRequest struct {
	Path string      `path:"path" doc:"Path of the value."`
	Data wire.Object `json:"data" body:"whole" doc:"The value: the whole body, any JSON object that is not empty."`
}

// Response is a value as it was written.
type Response struct {
	route.Notes
	data wire.Object
}

// MarshalJSON writes the value.
func (r Response) MarshalJSON() ([]byte, error) { return r.data.MarshalJSON() }

// prefix is where a token's values lie. Batch tokens are stored nowhere, so
// nothing could end with them.
func prefix(tokenID string) (string, error) {
	if tokenID == "" || strings.ContainsRune(tokenID, '/') {
		return "", fault.New(fault.Invalid, "cubbyhole operations are only supported by service tokens")
	}
	return "t/" + tokenID + "/", nil
}

func key(by route.Caller, path string) (string, error) {
	if err := engine.CheckPath(path); err != nil {
		return "", err
	}
	p, err := prefix(by.TokenID)
	if err == nil {
		err = storage.CheckKey(p + path)
	}
	return p + path, err
}

// Read answers a value.
func (s *Store) Read(ctx context.Context, by route.Caller, in Request) (Response, error) {
	k, err := key(by, in.Path)
	if err != nil {
		return Response{}, err
	}
	out := Response{Notes: route.Notes{Subject: route.Subject{Path: in.Path}}}
	err = s.engine.View(ctx, func(r storage.Reader) (err error) {
		out.data, err = r.Get(k)
		return err
	})
	if errors.Is(err, storage.ErrNotFound) {
		return Response{}, route.Missing()
	}
	out.Subject.Fingerprint = s.print(out.data)
	return out, err
}

// Write keeps a value.
func (s *Store) Write(ctx context.Context, by route.Caller, in WriteRequest) (route.Empty, error) {
	k, err := key(by, in.Path)
	if err != nil {
		return route.Empty{}, err
	}
	data := jsontext.Value(in.Data)
	if err := data.Compact(); err != nil || string(data) == "{}" {
		return route.Empty{}, fault.New(fault.Invalid, "missing data fields")
	}
	if s.maxPayload > 0 && len(data) > s.maxPayload {
		return route.Empty{}, fault.New(fault.TooLarge, "the value is %d bytes; at most %d are accepted", len(data), s.maxPayload)
	}
	_, err = s.engine.Update(ctx, func(t storage.Txn) error { return t.Put(k, data) })
	if errors.Is(err, storage.ErrTooLarge) {
		err = fault.Wrap(fault.TooLarge, err, "the value is larger than storage takes at once")
	}
	return route.Empty{Notes: route.Notes{Subject: route.Subject{Path: in.Path, Fingerprint: s.print(data)}}}, err
}

// Delete removes a value; one that is not there is no mistake.
func (s *Store) Delete(ctx context.Context, by route.Caller, in Request) (route.Empty, error) {
	k, err := key(by, in.Path)
	if err != nil {
		return route.Empty{}, err
	}
	_, err = s.engine.Update(ctx, func(t storage.Txn) error { return t.Delete(k) })
	return route.Empty{Notes: route.Notes{Subject: route.Subject{Path: in.Path}}}, err
}

// List answers the names in a folder.
func (s *Store) List(ctx context.Context, by route.Caller, in ListRequest) (route.Keys, error) {
	path, err := engine.Folder(in.Path)
	if err != nil {
		return route.Keys{}, err
	}
	below, err := prefix(by.TokenID)
	if err != nil {
		return route.Keys{}, err
	}
	if path != "" {
		below += path + "/"
	}
	out, err := engine.Names(ctx, s.engine, below, in.Page)
	out.Subject.Path = path
	return out, err
}

// Purge removes what a token kept, for when it ends. It works through as many
// transactions as it takes; after an error it is called again and goes on.
func (s *Store) Purge(ctx context.Context, tokenID string) error {
	below, err := prefix(tokenID)
	if err != nil {
		return nil // such a token kept nothing
	}
	const page = 16 // values are read, too, and may be large
	for {
		var entries []storage.Entry
		_, err := s.engine.Update(ctx, func(t storage.Txn) (err error) {
			if entries, err = t.Scan(below, "", page); err != nil {
				return err
			}
			for _, e := range entries {
				if err := t.Delete(e.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || len(entries) < page {
			return err
		}
	}
}
