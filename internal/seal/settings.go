package seal

import (
	"errors"
	"fmt"
	"slices"
)

// ErrShares says that a seal has no settings to be opened with: people open it
// with their key shares.
var ErrShares = errors.New("this seal is opened with key shares")

// CheckSettings returns an error that names the first of the given settings
// which the kind does not know, or one that is required and missing.
func CheckSettings(kind string, known []Setting, given map[string]string) error {
	for name := range given {
		if !slices.ContainsFunc(known, func(s Setting) bool { return s.Name == name }) {
			return fmt.Errorf("seal %q has no setting %q", kind, name)
		}
	}
	for _, s := range known {
		if s.Required && given[s.Name] == "" {
			return fmt.Errorf("seal %q needs the setting %q: %s", kind, s.Name, s.Doc)
		}
	}
	return nil
}
