//! One request: checked, given to the node, answered. Never keeps anything of it.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming as IncomingBody};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::client;
use super::cors::{Cors, Origin};
use super::counters::Count;
use super::refusal::Refusal;
use super::server::Shared;
use super::{Answer, Incoming, Request};

/// Answers a request, whatever it is.
pub(super) async fn respond(
    shared: &Shared,
    peer: IpAddr,
    request: http::Request<IncomingBody>,
) -> Response<Full<Bytes>> {
    let origin = shared.cors.origin(request.headers());
    let preflight = Cors::is_preflight(request.method(), request.headers());
    let answered = if origin == Origin::Refused {
        let text = "this web origin may not use the server; its operator can list it in http.allowed_origins";
        Err(Refusal::new(Count::BadOrigin, StatusCode::FORBIDDEN, text))
    } else if preflight || *request.method() == Method::OPTIONS {
        shared.counters.add(Count::Preflights);
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    } else {
        pass(shared, peer, request).await.and_then(response)
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        shared.counters.add(refusal.count);
        refusal.response()
    });
    shared.cors.mark(&origin, preflight, response.headers_mut());
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn pass(shared: &Shared, peer: IpAddr, request: http::Request<IncomingBody>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    if !matches!(head.method.as_str(), "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE") {
        let text = "this method is not known here; use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
        return Err(Refusal::new(Count::BadMethod, StatusCode::METHOD_NOT_ALLOWED, text));
    }
    let Some(path) = decode(head.uri.path()) else {
        let text = "the path is not percent-encoded UTF-8";
        return Err(Refusal::new(Count::BadPath, StatusCode::BAD_REQUEST, text));
    };
    let length = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let body = read(shared, body, length).await?;
    let request = Request {
        client: client(peer, &head.headers, &shared.trusted),
        content_type: head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned),
        method: head.method,
        path,
        query: head.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    let (reply, answer) = oneshot::channel();
    shared.incoming.try_send(Incoming { request, reply }).map_err(|error| {
        let text = match error {
            TrySendError::Full(_) => "the node is overloaded; try again",
            TrySendError::Closed(_) => "the node is stopping; try another one",
        };
        Refusal::new(Count::Overloaded, StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    shared.counters.add(Count::Requests);
    match timeout(shared.answer_timeout, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            let text = "the node gave this request up; try again";
            Err(Refusal::new(Count::GivenUp, StatusCode::SERVICE_UNAVAILABLE, text))
        }
        Err(_) => {
            let text = format!("the node did not answer within {:?}", shared.answer_timeout);
            Err(Refusal::new(Count::Unanswered, StatusCode::GATEWAY_TIMEOUT, text))
        }
    }
}

async fn read(shared: &Shared, body: IncomingBody, length: Option<u64>) -> Result<Bytes, Refusal> {
    let limit = shared.body_limit;
    let too_large = || {
        let text = format!("the body is longer than {limit} bytes, the most that is taken here");
        Refusal::new(Count::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match timeout(shared.body_timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => {
            let text = "the body ended early or is badly framed";
            Err(Refusal::new(Count::BodyBroken, StatusCode::BAD_REQUEST, text))
        }
        Err(_) => {
            let text = format!("the body did not arrive within {:?}", shared.body_timeout);
            Err(Refusal::new(Count::BodySlow, StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

fn response(answer: Answer) -> Result<Response<Full<Bytes>>, Refusal> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).map_err(|_| {
        let text = format!("the node answered with the status {}", answer.status);
        Refusal::new(Count::GivenUp, StatusCode::SERVICE_UNAVAILABLE, text)
    })?;
    if !answer.content_type.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    }
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

/// Percent-decodes a path (RFC 3986 §2.1); `None` if it is badly encoded or not UTF-8.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        let hex = |digit: u8| char::from(digit).to_digit(16);
        bytes.push((hex(digits[0])? * 16 + hex(digits[1])?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}
