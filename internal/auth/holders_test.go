package auth_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cofferhq/coffer/internal/auth"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/storage/memory"
)

func TestStoredHolders(t *testing.T) {
	s := memory.New()
	t.Cleanup(func() { _ = s.Close() })
	const n = 1003 // more than two pages
	for i := 0; i < n; i += 50 {
		if _, err := s.Update(t.Context(), func(tx storage.Txn) error {
			for j := i; j < min(i+50, n); j++ {
				row := fmt.Sprintf(`{"id":"x","token_policies":["p%d"],"token_no_default_policy":%v}`, j, j%2 == 1)
				if err := tx.Put(fmt.Sprintf("role/r%04d", j), []byte(row)); err != nil {
					return err
				}
			}
			return tx.Put("role-id/other", []byte("no role"))
		}); err != nil {
			t.Fatal(err)
		}
	}
	var got []auth.Holder
	if err := auth.StoredHolders(t.Context(), s, "role/", "roles/", func(h auth.Holder) bool { got = append(got, h); return true }); err != nil {
		t.Fatal(err)
	}
	if len(got) != n || got[1002].Path != "roles/r1002" || !slices.Equal(got[0].Policies, []string{"p0", "default"}) || !slices.Equal(got[1].Policies, []string{"p1"}) {
		t.Errorf("%d holders: %+v … %+v", len(got), got[:2], got[len(got)-1])
	}
	got = nil
	if err := auth.StoredHolders(t.Context(), s, "role/", "roles/", func(h auth.Holder) bool { got = append(got, h); return len(got) < 3 }); err != nil || len(got) != 3 {
		t.Errorf("%d holders, %v", len(got), err)
	}
	if err := auth.StoredHolders(t.Context(), s, "role-id/", "", func(auth.Holder) bool { return true }); err == nil {
		t.Error("a row that is no role is passed over")
	}
}
