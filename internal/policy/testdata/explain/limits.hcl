path "secret/app/vault/*" {
  capabilities = ["deny"]
}
path "secret/data/app/*" {
  capabilities = ["update"]
}
path "kv1/config" {
  capabilities        = ["read"]
  required_parameters = ["mode"]
}
path "kv1/secret" {
  capabilities     = ["read"]
  min_wrapping_ttl = "1m"
}
