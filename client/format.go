package client

import "fmt"

// fmt passes a Secret's own formatting by where it meets a pointer to a struct
// with a verb that pointers do not have, such as %s. What holds a Secret
// therefore formats itself, from the start and as %+v whatever the verb.

// Format writes the fields, secrets redacted.
func (a Auth) Format(f fmt.State, _ rune) {
	type plain Auth
	_, _ = fmt.Fprintf(f, "%+v", plain(a))
}

// Format writes the fields, secrets redacted.
func (w WrapInfo) Format(f fmt.State, _ rune) {
	type plain WrapInfo
	_, _ = fmt.Fprintf(f, "%+v", plain(w))
}

// Format writes the fields, secrets redacted.
func (t TokenInfo) Format(f fmt.State, _ rune) {
	type plain TokenInfo
	_, _ = fmt.Fprintf(f, "%+v", plain(t))
}

// Format writes the fields, secrets redacted.
func (t TokenRequest) Format(f fmt.State, _ rune) {
	type plain TokenRequest
	_, _ = fmt.Fprintf(f, "%+v", plain(t))
}

// Format writes the fields, secrets redacted.
func (i InitAnswer) Format(f fmt.State, _ rune) {
	type plain InitAnswer
	_, _ = fmt.Fprintf(f, "%+v", plain(i))
}

// Format writes the fields, secrets redacted.
func (c Config) Format(f fmt.State, _ rune) {
	type plain Config
	_, _ = fmt.Fprintf(f, "%+v", plain(c))
}

// Format writes where the client goes, and nothing that it knows.
func (c *Client) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "client of %s in namespace %q", c.config.Address, c.config.Namespace)
}
