# A space of one's own for everybody who logs in with a name.
path "secret/people/{{identity.entity.name}}/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

path "secret/team/{{identity.entity.metadata.team}}/*" {
  capabilities = ["read", "list"]
}
