package kv_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cofferhq/coffer/internal/engine/enginetest"
	"github.com/cofferhq/coffer/internal/engine/kv"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func metadata(t testing.TB, e *enginetest.Engine, path string) kv.MetadataResponse {
	t.Helper()
	return e.Must(t, 200, "GET", "metadata/"+path, "").Output.(kv.MetadataResponse)
}

func TestVersionsAnswerAsDeletedAfterTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openV2(t)
		e.Must(t, 204, "POST", "config", `{"delete_version_after":"1h"}`)
		e.Must(t, 204, "POST", "metadata/long", `{"delete_version_after":"2h"}`)
		e.Must(t, 204, "POST", "metadata/short", `{"delete_version_after":"10m"}`)
		for _, path := range []string{"plain", "long", "short"} {
			e.Must(t, 200, "POST", "data/"+path, `{"data":{"a":1}}`)
		}
		begun := time.Now()
		for path, after := range map[string]time.Duration{"plain": time.Hour, "long": time.Hour, "short": 10 * time.Minute} {
			if got := metadata(t, e, path).Versions["1"].Deletion; !got.Equal(begun.Add(after)) {
				t.Errorf("%s is deleted at %v, want after %v", path, got, after)
			}
		}
		time.Sleep(10*time.Minute - time.Second)
		e.Must(t, 200, "GET", "data/short", "")
		time.Sleep(time.Second)
		e.Must(t, 404, "GET", "data/short", "")
		refused(t, e, 400, "is deleted", "POST", "promote/short", `{"version":1}`)
		e.Must(t, 204, "POST", "undelete/short", `{"versions":[1]}`)
		time.Sleep(24 * time.Hour)
		e.Must(t, 200, "GET", "data/short", "")
		e.Must(t, 204, "POST", "config", `{"delete_version_after":"-5s"}`)
		same(t, e, 200, `{"max_versions":0,"cas_required":false,"delete_version_after":"-1s","destroy_deleted_after":"0s"}`, "GET", "config", "")
		e.Must(t, 200, "POST", "data/short", `{"data":{"a":1}}`)
		if got := metadata(t, e, "short").Versions["2"].Deletion; !got.IsZero() {
			t.Errorf("deletion is off for the mount, but set to %v", got)
		}
	})
}

func TestDeletedVersionsAreDestroyedWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
		stop := e.Run(t)
		defer stop()
		e.Must(t, 204, "POST", "config", `{"destroy_deleted_after":"1h"}`)
		for i := range 60 {
			e.Must(t, 200, "POST", fmt.Sprintf("data/due/%d", i), `{"data":{"a":1}}`)
			e.Must(t, 204, "DELETE", fmt.Sprintf("data/due/%d", i), "")
		}
		for _, path := range []string{"undeleted", "again", "kept", "gone"} {
			e.Must(t, 200, "POST", "data/"+path, `{"data":{"a":1}}`)
			e.Must(t, 204, "DELETE", "data/"+path, "")
		}
		time.Sleep(30 * time.Minute)
		e.Must(t, 204, "POST", "undelete/undeleted", `{"versions":[1]}`)
		e.Must(t, 204, "POST", "undelete/again", `{"versions":[1]}`)
		e.Must(t, 204, "DELETE", "data/again", "")
		e.Must(t, 204, "POST", "metadata/kept", `{"destroy_deleted_after":"2h"}`)
		e.Must(t, 204, "DELETE", "metadata/gone", "")
		e.Must(t, 200, "POST", "data/gone", `{"data":{"a":1}}`)

		time.Sleep(30*time.Minute + kv.FlushInterval)
		for path, want := range map[string]bool{"due/0": true, "due/59": true, "undeleted": false, "again": false, "kept": false, "gone": false} {
			if got := metadata(t, e, path).Versions["1"].Gone; got != want {
				t.Errorf("after an hour %s is destroyed: %v, want %v", path, got, want)
			}
		}
		time.Sleep(time.Hour + kv.FlushInterval)
		for path, want := range map[string]bool{"undeleted": false, "again": true, "kept": true, "gone": false} {
			if got := metadata(t, e, path).Versions["1"].Gone; got != want {
				t.Errorf("after two hours %s is destroyed: %v, want %v", path, got, want)
			}
		}
		// 64 metadata rows, the config, and the data of undeleted and gone.
		if got := countRows(t, store); got != 64+1+2 {
			t.Errorf("%d rows are left", got)
		}
	})
}

func TestLargePrunesAndDeletesAreClearedInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memory.New()
		e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
		e.Must(t, 204, "POST", "metadata/a", `{"max_versions":300}`)
		for range 300 {
			e.Must(t, 200, "POST", "data/a", `{"data":{"a":1}}`)
		}
		var numbers []string
		for i := range 150 {
			numbers = append(numbers, strconv.Itoa(i+1))
		}
		e.Must(t, 204, "POST", "destroy/a", `{"versions":[`+strings.Join(numbers, ",")+`]}`)
		if !metadata(t, e, "a").Versions["150"].Gone {
			t.Error("version 150 is not destroyed")
		}
		e.Must(t, 204, "POST", "metadata/a", `{"max_versions":2}`)
		e.Must(t, 200, "POST", "data/a", `{"data":{"a":2}}`)
		if out := metadata(t, e, "a"); len(out.Versions) != 2 || out.Oldest != 300 {
			t.Errorf("%d versions, oldest %d", len(out.Versions), out.Oldest)
		}
		refused(t, e, 404, "", "GET", "data/a?version=1", "")
		stop := e.Run(t)
		synctest.Wait()
		if got := countRows(t, store); got != 3 {
			t.Errorf("after the prune %d rows are left, want 3", got)
		}
		e.Must(t, 204, "POST", "metadata/a", `{"max_versions":300}`)
		for range 298 {
			e.Must(t, 200, "POST", "data/a", `{"data":{"a":1}}`)
		}
		e.Must(t, 204, "DELETE", "metadata/a", "")
		e.Must(t, 200, "POST", "data/a", `{"data":{"new":1}}`)
		synctest.Wait()
		if got := countRows(t, store); got != 2 {
			t.Errorf("after the delete %d rows are left, want 2", got)
		}
		same(t, e, 200, `{"subkeys":{"new":null},"metadata":{"version":1,"created_time":`+someTime+`,"deletion_time":"","destroyed":false,"custom_metadata":null,"labels":["active"]}}`, "GET", "subkeys/a", "")
		stop()
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openV2(t)
		e.Must(t, 200, "POST", "data/a", `{"data":{"a":1}}`)
		e.Must(t, 204, "PATCH", "metadata/a", `{"expires_at":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}`)
		if a := e.Must(t, 200, "GET", "data/a", ""); a.Warnings != nil {
			t.Errorf("before its time: %q", a.Warnings)
		}
		time.Sleep(time.Hour)
		if a := e.Must(t, 200, "GET", "data/a", ""); len(a.Warnings) != 1 || !strings.Contains(a.Warnings[0], "expired") {
			t.Errorf("after its time: %q", a.Warnings)
		}
		e.Must(t, 204, "PATCH", "metadata/a", `{"expiry":"enforce"}`)
		a := e.Must(t, 404, "GET", "data/a", "")
		if len(a.Warnings) != 1 || a.Output.(kv.ReadResponse).Data != nil {
			t.Errorf("enforced: %q %s", a.Warnings, a.Data)
		}
		e.Must(t, 404, "GET", "data/a?version=1", "")
		e.Must(t, 404, "GET", "subkeys/a", "")
		e.Must(t, 204, "PATCH", "metadata/a", `{"expires_at":""}`)
		e.Must(t, 200, "GET", "data/a", "")
	})
}

// counting counts the Updates that a mount makes.
type counting struct {
	storage.Engine
	updates atomic.Int64
}

func (c *counting) Update(ctx context.Context, fn func(storage.Txn) error) (storage.Revision, error) {
	c.updates.Add(1)
	return c.Engine.Update(ctx, fn)
}

func TestLastReadsAreWrittenInBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &counting{Engine: memory.New()}
		e := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
		const secrets = 250
		for i := range secrets {
			e.Must(t, 200, "POST", fmt.Sprintf("data/s/%d", i), `{"data":{"a":1}}`)
		}
		e.Must(t, 200, "POST", "data/deleted", `{"data":{"a":1}}`)
		bob := route.Caller{DisplayName: "userpass-bob"}
		store.updates.Store(0)
		for range 4 {
			for i := range secrets {
				if a := e.As(bob, "GET", fmt.Sprintf("data/s/%d", i), ""); a.Err != nil {
					t.Fatal(a.Err)
				}
			}
		}
		e.As(bob, "GET", "data/deleted", "")
		read := time.Now()
		if out := metadata(t, e, "s/7"); out.LastReadBy != "userpass-bob" || !out.LastRead.Equal(read) {
			t.Errorf("before the flush: %v by %q", out.LastRead, out.LastReadBy)
		}
		if n := store.updates.Load(); n != 0 {
			t.Errorf("reads made %d updates", n)
		}
		e.Must(t, 204, "DELETE", "metadata/deleted", "")
		store.updates.Store(0)
		stop := e.Run(t)
		synctest.Wait()
		if n := store.updates.Load(); n != 6 { // of 50 each
			t.Errorf("the flush of %d reads made %d updates", secrets, n)
		}
		time.Sleep(time.Minute)
		e.As(route.Caller{DisplayName: "late"}, "GET", "data/s/1", "")
		stop()
		again := enginetest.Open(t, kv.V2.Spec(), enginetest.Options{Storage: store})
		if out := metadata(t, again, "s/7"); out.LastReadBy != "userpass-bob" || !out.LastRead.Equal(read) {
			t.Errorf("after a restart: %v by %q", out.LastRead, out.LastReadBy)
		}
		if out := metadata(t, again, "s/1"); out.LastReadBy != "late" {
			t.Errorf("the reads before the end: by %q", out.LastReadBy)
		}
		if got := countRows(t, store); got != 3*secrets {
			t.Errorf("%d rows, want %d: a deleted secret's last read must not come back", got, 3*secrets)
		}
	})
}

func TestReadingManySecretsCostsFewWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := openV2(t)
		const secrets = 1600
		for i := range secrets {
			e.Must(t, 200, "POST", fmt.Sprintf("data/s%d", i), `{"data":{"a":1}}`)
		}
		stop := e.Run(t)
		for i := range secrets {
			e.Must(t, 200, "GET", fmt.Sprintf("data/s%d", i), "")
		}
		written := func() (n int) {
			err := e.Storage.View(t.Context(), func(r storage.Reader) error {
				return storage.All(r, "s/", func(storage.Entry) error { n++; return nil })
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		time.Sleep(kv.FlushInterval + time.Second) // the round at the start, and one more
		if n := written(); n == 0 || n > 2*500 {
			t.Errorf("two rounds wrote %d last reads", n)
		}
		for i := range secrets { // what waits in memory is known all the same
			if metadata(t, e, fmt.Sprintf("s%d", i)).LastReadBy == "" {
				t.Fatalf("s%d: its last read is not known", i)
			}
		}
		stop()
		if n := written(); n != secrets {
			t.Errorf("at the end %d last reads are written, want %d", n, secrets)
		}
	})
}
