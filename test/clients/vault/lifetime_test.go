package vault

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// watch starts a watcher over a new token and returns it with the client that
// holds the token.
func watch(t *testing.T, request *api.TokenCreateRequest) (*api.Client, *api.LifetimeWatcher, *api.Secret) {
	t.Helper()
	_, root := start(t)
	made, err := root.Auth().Token().Create(request)
	must(t, err)
	own := as(t, root, made.Auth.ClientToken)
	w, err := own.NewLifetimeWatcher(&api.LifetimeWatcherInput{Secret: made})
	must(t, err)
	go w.Start()
	t.Cleanup(w.Stop)
	return root, w, made
}

func TestLifetimeWatcherRenews(t *testing.T) {
	t.Parallel()
	root, w, made := watch(t, &api.TokenCreateRequest{Policies: []string{"default"}, Period: "4s"})
	end := time.After(20 * time.Second)
	for renewals := 0; renewals < 3; {
		select {
		case r := <-w.RenewCh():
			renewals++
			if r.Secret.Auth.LeaseDuration != 4 || !r.Secret.Auth.Renewable {
				t.Errorf("renewed: %+v", r.Secret.Auth)
			}
		case err := <-w.DoneCh():
			t.Fatalf("it ended after %d renewals: %v", renewals, err)
		case <-end:
			t.Fatalf("%d renewals in 20 seconds", renewals)
		}
	}
	// past its first term the token lives, until it is revoked
	must(t, lookup(root, made))
	must(t, root.Auth().Token().RevokeTree(made.Auth.ClientToken))
	select {
	case <-w.DoneCh():
	case <-time.After(15 * time.Second):
		t.Error("the watcher goes on over a revoked token")
	}
}

func TestLifetimeWatcherEnds(t *testing.T) {
	t.Parallel()
	root, w, made := watch(t, &api.TokenCreateRequest{Policies: []string{"default"}, TTL: "4s", ExplicitMaxTTL: "6s"})
	end := time.After(20 * time.Second)
	for renewals := 0; ; {
		select {
		case <-w.RenewCh():
			renewals++
			continue
		case err := <-w.DoneCh():
			if err != nil || renewals < 2 {
				t.Errorf("it ended after %d renewals: %v", renewals, err)
			}
		case <-end:
			t.Fatal("the watcher goes on beyond the token's end")
		}
		break
	}
	gone := time.Now().Add(10 * time.Second)
	for lookup(root, made) == nil {
		if time.Now().After(gone) {
			t.Fatal("the token outlives explicit_max_ttl")
		}
		time.Sleep(100 * time.Millisecond)
	}
	refused(t, lookup(root, made), 403, "bad token")
}

func lookup(root *api.Client, made *api.Secret) error {
	_, err := root.Auth().Token().Lookup(made.Auth.ClientToken)
	return err
}
