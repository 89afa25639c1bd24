# Agrees: the plain rule lists, its data spelling cannot.
path "secret/good/*" { capabilities = ["read", "list"] }
path "secret/data/good/*" { capabilities = ["read"] }
path "secret/metadata/good/*" { capabilities = ["list"] }

path "secret/app/*" { capabilities = ["read", "list"] }
path "secret/data/app/*" { capabilities = ["create", "update", "read"] }
path "secret/metadata/app/*" { capabilities = ["deny"] }

path "secret/closed/db" { capabilities = ["deny"] }
path "secret/data/closed/db" { capabilities = ["read"] }

path "secret/da*" { capabilities = ["read"] }
path "secret/data/list/*" { capabilities = ["read", "list"] }
path "secret/change/*" { capabilities = ["update"] }
path "secret/destroy/gone/*" { capabilities = ["update"] }
path "secret/data/keys" {
  capabilities = ["create", "update"]
  allowed_parameters = { "password" = [] }
}
path "secret/{{identity.entity.id}}/*" { capabilities = ["read"] }
