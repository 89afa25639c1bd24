# The web team's pipeline: a secret id is good for one job.
token_policies     = ["ci-web", "walls"]
token_ttl          = "20m"
token_max_ttl      = "1h"
secret_id_ttl      = "10m"
secret_id_num_uses = 1
