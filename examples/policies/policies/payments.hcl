# The payments team. What it writes has an owner, and card data is read wrapped only.
path "secret/payments/*" {
  capabilities = ["create", "read", "update", "list"]
}

path "secret/metadata/payments/*" {
  capabilities        = ["create", "update", "read", "list"]
  required_parameters = ["owner"]
}

path "secret/payments/cards/*" {
  capabilities     = ["read"]
  max_wrapping_ttl = "5m"
}

path "platform/shared/*" {
  capabilities = ["read", "list"]
}
