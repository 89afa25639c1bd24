//go:build !pkcs11

package app_test

// softHSM is for builds with the seal that needs one.
func softHSM() (end func()) { return func() {} }
