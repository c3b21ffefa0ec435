//! Cross-origin rules (the Fetch standard's CORS protocol). Never allows credentials.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::config::{Origins, PublicUrl};

/// Who may call.
#[derive(Debug)]
pub(super) struct Cors {
    origins: Origins,
    own: Option<String>,
}

/// What a request's origin is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Not a browser, or a request that needs no permission.
    None,
    /// Allowed; the value to answer with.
    Allowed(HeaderValue),
    /// Not allowed.
    Refused,
}

impl Cors {
    pub(super) fn new(origins: &Origins, public: Option<&PublicUrl>) -> Cors {
        Cors { origins: origins.clone(), own: public.map(PublicUrl::origin) }
    }

    pub(super) fn origin(&self, headers: &HeaderMap) -> Origin {
        let Some(origin) = headers.get(ORIGIN) else { return Origin::None };
        match &self.origins {
            Origins::Any => Origin::Allowed(HeaderValue::from_static("*")),
            Origins::List(list) => {
                let mut allowed = list.iter().chain(&self.own);
                let found = allowed.any(|one| one.as_bytes().eq_ignore_ascii_case(origin.as_bytes()));
                if found { Origin::Allowed(origin.clone()) } else { Origin::Refused }
            }
        }
    }

    /// Whether this asks for permission rather than for something.
    pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Adds what an allowed origin's browser needs to see.
    pub(super) fn mark(&self, origin: &Origin, preflight: bool, headers: &mut HeaderMap) {
        if matches!(self.origins, Origins::List(_)) {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Origin::Allowed(value) = origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value.clone());
        if preflight {
            let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            let fields = HeaderValue::from_static("Content-Type, Authorization, Accept, If-Match");
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, fields);
            headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
        } else {
            let fields = HeaderValue::from_static("Location, ETag, Link, Accept-Patch");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, fields);
        }
    }
}
