// Package policy is the policy language and the decision: it parses, formats,
// lints and templates policies written in Vault's HCL or JSON, compiles a set
// of them into an ACL, decides requests with it and explains the decision.
//
// It is not a store of policies, it does not know tokens, mounts or routes, and
// it reads nothing but its arguments and the clock (for rules that expire).
//
// # One path
//
// A rule's path is exact, ends in * (a prefix), or holds + in place of whole
// segments, with or without a final *. Of the rules that match a path one
// decides. As in Vault, an exact rule comes first; then, of two rules, the one
//
//  1. whose first + or * stands later,
//  2. that does not end in *,
//  3. that has fewer + segments,
//  4. that is longer,
//  5. that sorts later.
//
// Rules with the same path, from whatever policies, merge into one: deny wins,
// capabilities add up, parameter lists join (an empty list, any value, wins
// over a list of values), the shorter wrapping TTLs win. A list of foo/ falls
// back to rules for foo: exact foo/, exact foo, patterns for foo/, patterns for
// foo.
//
// # Conditions
//
// A rule may have a condition, a CEL expression over Facts. It does not change which
// path decides: where the rules of that path are not met, nothing less specific takes
// their place. Among the rules of the path that decides, one counts only while its
// condition is true. One whose condition cannot be told, because something is not known,
// not there or too much work, denies, whatever it would do.
//
// # Templates
//
// {{identity.entity.name}} and the like stand for what is known of the caller's entity.
// Where there is no such name, or its value could mean another place (it is empty, a
// dot or two, or holds / + * a brace or a control character), a rule that grants is left
// out, and one that denies grows: it denies all that begins as its path does before the
// template, and no rule is above it.
//
// # Two spellings
//
// A versioned mount serves secret/app/db as secret/data/app/db,
// secret/metadata/app/db and so on. The first is the plain spelling, the others
// are wire spellings, and a rule may be written in either (Request.Path and
// Request.Plain):
//
//  1. The wire winner is the rule that Vault would choose for Path.
//  2. The plain winner is the rule that Vault would choose for Plain among the
//     rules that do not match Path. A rule that matches both ways, as secret/*
//     does, is one rule, and takes part as a wire rule only.
//  3. The two winners are compared by the priorities above, the wire winner as
//     if the segment that Path has more than Plain were not in it. A rule whose
//     last text ends inside that segment (secret/da*) counts as ending before it.
//  4. If neither is above the other they merge, as rules with one path do.
//  5. A wire rule must hold Need, a plain rule PlainNeed; merged rules must hold
//     either. Each rule's deny, parameters and wrapping TTLs count as always.
//
// So a set of policies in which no rule matches the plain spelling alone is
// decided exactly as Vault decides it. For a read of secret/data/app/db:
//
//	rules                                         decided by
//	secret/data/app/*   secret/app/*              both, merged; deny wins
//	secret/data/app/*   secret/app/db             secret/app/db
//	secret/data/app/db  secret/app/*              secret/data/app/db
//	secret/data/app/db  secret/app/db             both, merged; deny wins
//	secret/*            secret/app/*              secret/app/*
//	secret/*            secret/data/*             secret/data/*, as in Vault
//	secret/+/app/db     secret/app/db             both, merged (secret/+/app/db without its +)
//	secret/metadata/*   secret/app/+              secret/app/+; the first does not match
//
// A secret whose own path starts with a wire segment (data/x below secret/), or
// is config, has no plain spelling: rules for it are written in wire spelling, or
// secret/data/x would mean two secrets.
//
// # What differs from Vault
//
//   - Keys that bound a rule and that Coffer does not enforce are refused, not
//     passed over: mfa_methods, control_group, subscribe_event_types,
//     pagination_limit, list_scan_response_keys_filter_path.
//   - A rule that denies and whose template has no value is not left out.
//   - expiration (OpenBao's) takes effect at its second in ACLs in use.
//   - Numbers in parameter lists are compared by value, so 1 in a rule means 1
//     and 1.0 in a request. In Vault they match nothing that comes as JSON.
//   - Two parameters whose names differ in case only are denied where a rule
//     bounds parameters.
//   - What a key sets twice in one rule is refused.
//   - The capability why is Coffer's own: to be told why a request was denied.
package policy
