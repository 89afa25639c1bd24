# For emergencies: reads everything and may end what runs, and changes no policy. Its
# tokens live for an hour (paths/auth/token/roles/break-glass.hcl), and each use of
# them is in the audit log under this name.
path "secret/*" {
  capabilities = ["read", "list"]
}

path "sys/leases/revoke-prefix/*" {
  capabilities = ["update", "sudo"]
}

path "sys/policies/why" {
  capabilities = ["update"]
}
