# What nobody does with a token of everyday use, whatever else it is granted. Every
# team's tokens have it.
path "secret/payments/keys/*" {
  capabilities = ["deny"]
}

path "sys/audit/*" {
  capabilities = ["deny"]
}

path "sys/policies/acl/*" {
  capabilities = ["deny"]
}
