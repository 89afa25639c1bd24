test "ada has a space of her own" {
  policies = ["person"]
  entity {
    name     = "ada"
    metadata = { team = "web" }
  }

  allow "create" "secret/people/ada/notes" { rule = "secret/people/{{identity.entity.name}}/*" }
  allow "read" "secret/team/web/hints" {}
  deny "read" "secret/people/bob/notes" "secret/team/payments/hints" {}
}

test "without an identity the templates grant nothing" {
  policies = ["person"]

  deny "read" "secret/people/ada/notes" "secret/people/x/notes" {}
}
