# The web team: its own secrets, and what the platform has for everybody.
path "secret/web/*" {
  capabilities = ["create", "read", "update", "patch", "delete", "list"]
}

path "platform/shared/*" {
  capabilities = ["read", "list"]
}
