test "somebody of the web team" {
  policies = ["web", "walls"]

  allow "read" "secret/web/db" "secret/web/deploy/db" {}
  allow "create" "secret/web/new" {}
  allow "list" "secret/web" "platform/shared/" {}
  allow "read" "platform/shared/ca" { rule = "platform/shared/*" }

  deny "update" "platform/shared/ca" {}
  deny "read" "secret/payments/db" {}
  deny "read" "secret/payments/keys/signing" { policy = "walls" }
  deny "update" "sys/policies/acl/web" { policy = "walls" }
  deny "update" "sys/audit/file" { policy = "walls" rule = "sys/audit/*" }
}

test "both spellings of a path are one path" {
  policies = ["web"]

  allow "read" "secret/web/db" "secret/data/web/db" { rule = "secret/web/*" }
  allow "delete" "secret/web/db" "secret/metadata/web/db" {}
}

test "the web team's pipeline" {
  policies = ["ci-web", "walls"]

  allow "read" "secret/web/deploy/db" {}
  allow "list" "secret/web/deploy" {}
  allow "create" "secret/web/builds/1042/signature" { rule = "secret/web/builds/+/signature" }
  allow "update" "secret/web/builds/1042/signature" {}

  deny "read" "secret/web/builds/1042/signature" {}
  deny "delete" "secret/web/deploy/db" {}
  deny "read" "secret/web/db" {}
}
