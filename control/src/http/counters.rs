//! What the listener counts: what it took, and every reason to refuse. Never resets.

use crate::counters::counters;

counters! {
    /// Connections accepted.
    Connections "connections";
    /// Requests given to the node.
    Requests "requests";
    /// Preflights answered.
    Preflights "preflights";
    /// Connections closed at once because there are too many.
    TooManyConnections "too_many_connections";
    /// Connections closed at once because their address has too many.
    TooManyFromAddress "too_many_from_address";
    /// Times the system had no connection to give, e.g. for want of file descriptors.
    AcceptFailed "accept_failed";
    /// TLS handshakes that failed.
    TlsFailed "tls_failed";
    /// TLS handshakes that took too long.
    TlsSlow "tls_slow";
    /// Connections closed because they were unused.
    Idle "idle_closed";
    /// Request heads that took too long.
    HeadSlow "head_slow";
    /// Request heads that are too long or have too many fields; 431.
    HeadTooLarge "head_too_large";
    /// What is no HTTP/1; 400.
    Malformed "malformed";
    /// Connections the client broke off.
    Aborted "aborted";
    /// Bodies that took too long; 408.
    BodySlow "body_slow";
    /// Bodies that are too long; 413.
    BodyTooLarge "body_too_large";
    /// Bodies that ended early or are badly framed; 400.
    BodyBroken "body_broken";
    /// Clients that did not take their response in time.
    ReaderSlow "reader_slow";
    /// Paths that are no percent-encoded UTF-8; 400.
    BadPath "bad_path";
    /// Methods nothing here has; 405.
    BadMethod "bad_method";
    /// Origins that are not allowed; 403.
    BadOrigin "bad_origin";
    /// Requests refused because the node's queue is full; 503.
    Overloaded "overloaded";
    /// Requests the node gave up; 503.
    GivenUp "given_up";
    /// Requests the node did not answer in time; 504.
    Unanswered "unanswered";
    /// Certificates read again.
    Reloaded "certificates_reloaded";
}
