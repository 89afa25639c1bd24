path "secret/app/*" { capabilities = ["create", "read", "update", "delete", "list", "patch"] }
path "secret/+/shared" { capabilities = ["read"] }
path "auth/token/lookup-self" { capabilities = ["read"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
