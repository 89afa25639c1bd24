allowed_policies       = ["break-glass"]
token_explicit_max_ttl = "1h"
renewable              = false
orphan                 = true
