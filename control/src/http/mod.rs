//! The public listener: HTTPS or HTTP, limits, CORS, client addresses. Never decides what a request means.
//!
//! HTTP/1.1 only. Every request that is taken goes to the node as an [`Incoming`]; every one that is not has a counted
//! reason and a JSON body that says why. Requests hyper itself refuses (no HTTP, a head too long) are answered 400 or
//! 431 without a body and are counted too.

mod client;
mod connection;
mod cors;
mod counters;
mod guard;
mod refusal;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use tokio::sync::oneshot;

pub use counters::{Count, Counters};
pub use server::{HttpError, Server};

/// A request and where its answer goes. A dropped `reply` is answered 503.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; nobody listens any more once the client has gone or the answer took too long.
    pub reply: oneshot::Sender<Answer>,
}

/// A request within all limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// GET, HEAD, POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Percent-decoded path with whatever prefix the public URL has.
    pub path: String,
    /// The query without its `?`, not decoded.
    pub query: String,
    /// The whole body.
    pub body: Bytes,
    /// The client: the peer, or what a trusted proxy says. IPv4 is never mapped into IPv6.
    pub client: IpAddr,
    /// The body's type as the client says.
    pub content_type: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599.
    pub status: u16,
    /// The body's type; empty if there is none.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
    /// More fields, e.g. `Location`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// An answer without more fields.
    pub fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
        Answer { status, content_type, body: body.into(), headers: Vec::new() }
    }
}
