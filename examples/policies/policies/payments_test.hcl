test "somebody of the payments team" {
  policies = ["payments", "walls"]

  allow "read" "secret/payments/db" {}
  allow "update" "secret/metadata/payments/db" { parameters = { owner = "payments" } }
  allow "read" "secret/payments/cards/4711" { wrap_ttl = "2m" }
  allow "list" "platform/shared" {}

  deny "update" "secret/metadata/payments/db" { parameters = { max_versions = 5 } }
  deny "read" "secret/payments/cards/4711" {}
  deny "read" "secret/payments/cards/4711" { wrap_ttl = "1h" }
  deny "update" "secret/payments/cards/4711" {}
  deny "read" "secret/payments/keys/signing" { policy = "walls" }
  deny "read" "secret/web/db" {}
}
