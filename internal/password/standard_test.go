package password

import (
	"testing"

	"github.com/cofferhq/coffer/internal/storage/memory"
)

// TestStandard: where no policy is named there is one all the same.
func TestStandard(t *testing.T) {
	s := NewStore(memory.New(), "")
	one, err := s.Generate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	two, _ := s.Generate(t.Context(), "")
	p, err := Parse(standard)
	if err != nil {
		t.Fatal(err)
	}
	if one == two || !p.Met(string(one)) || len(one) != 20 {
		t.Error("the standard password is not what its policy says, or not random")
	}
}
