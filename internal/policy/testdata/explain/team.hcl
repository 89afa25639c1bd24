path "secret/app/*" {
  capabilities = ["read", "list"]
}
path "secret/data/app/*" {
  capabilities = ["create", "read"]
}
path "secret/*" {
  capabilities = ["list"]
}
path "secret/+/app/db" {
  capabilities = ["patch"]
}
path "kv1/config" {
  capabilities       = ["update"]
  allowed_parameters = { "mode" = ["slow"] }
}
path "kv1/teams/+/app/*" {
  capabilities = ["read"]
}
path "kv1/teams/+/+/*" {
  capabilities = ["update"]
}
path "kv1/teams/*" {
  capabilities = ["list"]
}
path "sys/audit/*" {
  capabilities = ["create", "update"]
}
path "kv1/{{identity.entity.name}}/*" {
  capabilities = ["read"]
}
