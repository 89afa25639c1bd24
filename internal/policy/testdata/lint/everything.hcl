path "v1/secret/app" { capabilities = ["read"] }
path "kv1//app" { capabilities = ["read"] }
path "kv1/../x" { capabilities = ["read"] }
path "kv1/*/app" { capabilities = ["read"] }
path "kv1/app+x" { capabilities = ["read"] }
path "kv1/app*" { capabilities = ["read"] }
path "kv1/none" {}
path "kv1/deny" { capabilities = ["deny", "read"] }
path "kv1/once" { capabilities = ["create"] }
path "kv1/twice" { capabilities = ["read"] }
path "kv1/twice" { capabilities = ["deny"] }
path "kv1/sudo" { capabilities = ["read", "sudo"] }
path "sys/audit/file" { capabilities = ["create", "update", "sudo"] }
path "sys/seal" { capabilities = ["update", "sudo"] }
path "auth/token/create-orphan" { capabilities = ["create", "update", "sudo"] }
path "nowhere/app" { capabilities = ["read"] }
path "kv1/expired" {
  capabilities = ["read"]
  expiration = "2001-01-01T00:00:00Z"
}
path "kv1/values" {
  capabilities = ["create", "update"]
  allowed_parameters = { "*" = ["x"], "a" = [] }
  denied_parameters = { "*" = [] }
}
path "kv1/required" {
  capabilities = ["create", "update"]
  required_parameters = ["a", "b"]
  allowed_parameters = { "a" = [] }
}
path "kv1/tree/+/+/*" { capabilities = ["read"] }
path "kv1/tree/*" { capabilities = ["list"] }
path "kv1/closed/*" { capabilities = ["deny"] }
path "kv1/closed/open" { capabilities = ["read"] }
path "kv1/up/*" { capabilities = ["list"] }
path "kv1/up/+/x" { capabilities = ["read"] }
path "kv1/low/*" { capabilities = ["deny"] }
path "kv1/low/+/+/*" { capabilities = ["read"] }
