// Package client is Coffer's client for Go programs. It speaks the HTTP API
// whose routes and shapes Vault defined, so it also serves against other
// servers of that API as far as they have the route.
//
// A [Client] is made once and shared: it is safe for concurrent use, holds no
// state besides its connections, and [Client.WithToken] and
// [Client.WithNamespace] return others over the same connections. [Client.Do]
// is the one way to the server; the typed parts ([Client.KV], [Client.Plain],
// [Client.Token], [Client.Sys], [Client.Login], [Client.Wrapping]) say what is
// sent and what comes back.
//
// Requests are sent again when that cannot do harm: reads when the network or
// the server fails for a while, writes only when they were certainly not
// carried out. A write whose outcome is not known ends in [ErrUncertain].
//
// Tokens and secrets are of type [Secret] and [Raw]: however they are
// formatted, logged or marshalled they come out as a redaction. Reveal returns
// the value.
//
// The package starts no goroutines besides those of its connections, keeps
// nothing on disk, and does not cache or template secrets; an agent does that.
package client
