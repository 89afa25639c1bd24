package issuer

import "sync"

// Kept is the issuer of a method's settings, which knows its keys from one login
// to the next. The zero value keeps none yet.
type Kept struct {
	mu     sync.Mutex
	id     string
	issuer *Issuer
}

// Of returns the issuer of settings that have an id, which another write of them
// does not have. An issuer of earlier settings is left to those who use it.
func (k *Kept) Of(id string, s Source) (*Issuer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.issuer == nil || k.id != id {
		i, err := New(s)
		if err != nil {
			return nil, err
		}
		k.id, k.issuer = id, i
	}
	return k.issuer, nil
}
