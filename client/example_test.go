package client_test

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/cofferhq/coffer/client"
)

// server stands in for Coffer where an example runs.
func server() (*httptest.Server, client.Config) {
	mux := http.NewServeMux()
	answer := func(pattern, body string, status int) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	answer("GET /v1/secret/data/app/db", `{"request_id":"1","data":{"data":{"user":"app","password":"p4"},"metadata":{"version":4,"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":null,"labels":["active"]}}}`, 200)
	answer("POST /v1/secret/data/app/db", `{"errors":["check-and-set parameter did not match the current version"],"request_id":"2"}`, 400)
	answer("GET /v1/secret/metadata/app/", `{"request_id":"3","data":{"keys":["api","db","old/"]}}`, 200)
	s := httptest.NewTLSServer(mux)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s, client.Config{Address: s.URL, CACertPEM: authority, Token: "hvs.example"}
}

func Example() {
	s, config := server() // or client.FromEnvironment(os.Getenv)
	defer s.Close()
	c, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	secret, err := c.KV("secret").Get(context.Background(), "app/db")
	if err != nil {
		log.Fatal(err)
	}
	var db struct {
		User     string
		Password client.Secret
	}
	if err := secret.Decode(&db); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("version %d: %+v\n", secret.Number, db)
	fmt.Println("revealed:", db.Password.Reveal())
	// Output:
	// version 4: {User:app Password:[redacted]}
	// revealed: p4
}

// A condition keeps two writers from undoing each other's work.
func ExampleKV_Put() {
	s, config := server()
	defer s.Close()
	c, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.KV("secret").Put(context.Background(), "app/db", map[string]client.Secret{"password": "p5"}, client.CAS(3))
	if client.IsConflict(err) {
		fmt.Println("someone else was first")
	}
	// Output: someone else was first
}

func ExampleKV_List() {
	s, config := server()
	defer s.Close()
	c, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for name, err := range c.KV("secret").List(context.Background(), "app") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(name)
	}
	// Output:
	// api
	// db
	// old/
}

// A program that logs in keeps its token alive, and logs in again when that
// does not go on.
func ExampleTokens_KeepAlive() {
	config, err := client.FromEnvironment(os.Getenv)
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.New(config)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	for {
		token, err := c.Login().Userpass(ctx, "userpass", "app", client.Secret(os.Getenv("APP_PASSWORD")))
		if err != nil {
			log.Fatal(err)
		}
		go work(ctx, c.WithToken(token.Token))
		if err := c.Token().KeepAlive(ctx, token, nil); !errors.Is(err, client.ErrEnding) {
			return
		}
	}
}

func work(context.Context, *client.Client) {}
