package kv

import "errors"

// verdict is what validators said of data. A transaction asks for it; when it
// is not known the transaction is left, the data is checked, and the
// transaction begins anew, so that a slow check holds nobody up.
type verdict struct {
	known   bool
	rules   string // the validators, as text
	subject basis  // the version the data is, or was made from
	err     error
}

// undecided is returned by a transaction that needs a verdict.
type undecided struct {
	rules   *Validators
	text    string
	subject basis
	data    []byte
}

func (*undecided) Error() string { return "kv: the data was not checked yet" }

// ask returns the verdict on data, or undecided.
func (v *verdict) ask(rules *Validators, subject basis, data []byte) error {
	if rules == nil {
		return nil
	}
	text := rules.text()
	if v.known && v.rules == text && v.subject == subject {
		return v.err
	}
	return &undecided{rules, text, subject, data}
}

// decided runs the transaction that asks until it is not left for a verdict.
func (v *verdict) decided(s *Store, transact func() error) error {
	for {
		err := transact()
		var u *undecided
		if !errors.As(err, &u) {
			return err
		}
		r, err := s.rules.get(u.rules)
		if err == nil {
			err = r.check(u.data)
		}
		*v = verdict{known: true, rules: u.text, subject: u.subject, err: err}
	}
}
