package policystore

// Default returns the text of the policy "default" as a new server has it.
func Default() string { return defaultPolicy }
