# Where teams keep their secrets, and how their programs log in.
mount "secret/" {
  type        = "kv"
  version     = 2
  description = "what teams keep"
}
mount "platform/" {
  type        = "kv"
  version     = 2
  description = "what the platform keeps, for all teams to read"
}
auth "approle/" {
  type        = "approle"
  description = "pipelines and services"
  config      = { default_lease_ttl = "1h", max_lease_ttl = "8h" }
}
