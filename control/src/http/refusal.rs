//! Refusals of the listener itself, as the client sees them.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::counters::Count;

/// A refusal: what is counted, the status, the text.
pub(super) struct Refusal {
    pub(super) count: Count,
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub(super) fn new(count: Count, status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { count, status, text: text.into() }
    }

    /// The response. What may leave a part of the request unread ends the connection.
    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({ "error": self.count.name(), "message": self.text });
        let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.count {
            Count::BodySlow | Count::BodyTooLarge | Count::BodyBroken => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Count::BadMethod => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            }
            Count::Overloaded | Count::GivenUp => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
