# The web team's pipeline reads what it deploys, and adds new versions of what it
# builds. It deletes nothing.
path "secret/web/deploy/*" {
  capabilities = ["read", "list"]
}

path "secret/web/builds/+/signature" {
  capabilities = ["create", "update"]
}
