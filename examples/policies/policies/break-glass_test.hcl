test "break glass" {
  policies = ["break-glass"]

  allow "read" "secret/web/db" "secret/payments/keys/signing" {}
  allow "update" "sys/leases/revoke-prefix/database/creds/web" "sys/policies/why" {}

  deny "update" "secret/web/db" "sys/policies/acl/break-glass" {}
  deny "delete" "secret/web/db" {}
}

# A token of everyday use that also breaks the glass stays behind the walls: deny wins.
test "break glass beside the walls" {
  policies = ["break-glass", "walls"]

  deny "read" "secret/payments/keys/signing" { policy = "walls" }
}
