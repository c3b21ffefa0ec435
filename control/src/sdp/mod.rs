//! Session descriptions (RFC 8866), read tolerantly and written exactly. Never negotiates.
