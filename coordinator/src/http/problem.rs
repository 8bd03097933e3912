//! Every failure that the API answers with: problem details (RFC 9457).

use aide::{
    OperationOutput,
    generate::GenContext,
    openapi::{MediaType, Operation, ReferenceOr, Response as Documented, SchemaObject, StatusCode as Documentable},
    transform::TransformOperation,
};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hiresmed_services::store;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::error;

use super::document::text_header;
use crate::Error;

/// The media type of a problem (RFC 9457, section 3).
pub const CONTENT_TYPE: &str = "application/problem+json";

/// Seconds after which a caller may try again what failed because a service was away.
const AWAY_S: u64 = 5;

/// What went wrong, in the form of RFC 9457.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Problem {
    /// What kind of problem it is: a URN that never changes, for programs.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "uri", "example" = "urn:hiresmed:problem:unprocessable"))]
    kind: String,
    /// The kind in words, for people.
    title: &'static str,
    /// The HTTP status code.
    status: u16,
    /// What went wrong this time, and what to do about it.
    detail: String,
    /// Everything that is wrong with the values that were sent; empty for other problems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    faults: Vec<Fault>,
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

/// Something that is wrong with a value that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fault {
    /// The key, with dots: `lesions.diameter_mm.min`.
    pub path: String,
    /// What was given, or `missing`.
    pub value: String,
    /// What is allowed, continuing the sentence that begins with the key.
    pub allowed: String,
}

impl Problem {
    /// A problem of the given status code, one of those that are documented.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let (slug, title) = title(status.as_u16());
        let kind = format!("urn:hiresmed:problem:{slug}");
        Self { kind, title, status: status.as_u16(), detail: detail.into(), faults: Vec::new(), retry_after_s: None }
    }

    /// Syntax: what was sent cannot be read at all.
    pub fn unreadable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// There is no such thing, or none that the caller may know of.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// It contradicts what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// Values are wrong.
    pub fn faults(detail: impl Into<String>, faults: Vec<Fault>) -> Self {
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail) }
    }

    /// A quota is used up; it may have room after `retry_after_s` seconds.
    pub fn quota(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self { retry_after_s: Some(retry_after_s), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// A service is away for a while.
    pub fn away(detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(AWAY_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// It is our fault; the cause is in the log and not in the answer.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        error!(%cause, "request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the coordinator failed; its log has the cause")
    }
}

/// A kind's name in its URN, and its title.
fn title(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("unreadable", "The request cannot be read"),
        401 => ("unauthenticated", "A valid API key is needed"),
        403 => ("forbidden", "The API key does not allow this"),
        404 => ("not-found", "There is no such thing"),
        405 => ("method-not-allowed", "The resource has no such method"),
        408 => ("timeout", "The request came too slowly"),
        409 => ("conflict", "It contradicts what is there"),
        413 => ("too-large", "The content is too large"),
        415 => ("media-type", "The content has another type than is understood"),
        422 => ("unprocessable", "Values are wrong"),
        429 => ("quota", "A quota is used up"),
        503 => ("unavailable", "A service is away"),
        _ => ("internal", "The coordinator failed"),
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::Refused(faults) => {
                let fault = |fault: &hiresmed_protocol::validate::Fault| Fault {
                    path: fault.path.clone(),
                    value: fault.value.clone(),
                    allowed: fault.allowed.clone(),
                };
                Self::faults("values are wrong: `faults` names them all", faults.iter().map(fault).collect())
            }
            Error::UnknownModel { .. }
            | Error::AmbiguousModel { .. }
            | Error::OtherModality { .. }
            | Error::NoFiles { .. } => Self::faults(text, vec![named(error)]),
            Error::Models(errors) => Self::faults(text, errors.into_iter().map(named).collect()),
            Error::UnknownRequest(id) => Self::not_found(format!("there is no request `{id}`")),
            Error::Waiting { id, .. } => Self::conflict(format!(
                "request {id} waits until its lesion models are trained; ask again when its state is no longer `waiting`"
            )),
            Error::Over { id, state } => Self::conflict(format!("request {id} {state}")),
            Error::Document { .. } | Error::Randomness(_) => Self::internal(&text),
            Error::Store(error) => error.into(),
            Error::Queue(error) => {
                error!(%error, "the queue failed");
                Self::away("the queue is away; try again")
            }
        }
    }
}

/// The key that a name stands at, and what is wrong with it.
fn named(error: Error) -> Fault {
    let allowed = error.to_string();
    let (path, value) = match error {
        Error::UnknownModel { path, name, .. }
        | Error::AmbiguousModel { path, name, .. }
        | Error::OtherModality { path, name, .. } => (path, name),
        Error::NoFiles { path, source_name, .. } => (path, source_name),
        _ => (String::new(), String::new()),
    };
    Fault { path, value, allowed }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            // Only names that a caller gave can be no keys: ours are made of digests and ids.
            store::Error::Key { cause, .. } => Self::faults(format!("a name cannot be used: {cause}"), Vec::new()),
            store::Error::Source { cause, .. } => Self::unreadable(format!("the content broke off: {cause}")),
            store::Error::NotFound(_) | store::Error::Damaged { .. } => Self::internal(&error),
            store::Error::Full { .. } | store::Error::Denied { .. } | store::Error::Backend { .. } => {
                error!(%error, "the store failed");
                Self::away("the store is away; try again")
            }
        }
    }
}

impl OperationOutput for Problem {
    type Inner = Self;
}

/// Adds problems to an operation's documented responses.
pub fn document(context: &mut GenContext, operation: &mut Operation, statuses: &[u16]) {
    let responses = operation.responses.get_or_insert_default();
    for status in statuses {
        let json_schema = context.schema.subschema_for::<Problem>();
        let schema = Some(SchemaObject { json_schema, example: None, external_docs: None });
        let description = title(*status).1.to_owned();
        let mut response = Documented { description, ..Documented::default() };
        response.content.insert(CONTENT_TYPE.to_owned(), MediaType { schema, ..MediaType::default() });
        if matches!(status, 429 | 503) {
            let seconds = text_header("Seconds after which the call may succeed.");
            response.headers.insert("Retry-After".to_owned(), ReferenceOr::Item(seconds));
        }
        let entry = responses.responses.entry(Documentable::Code(*status));
        entry.or_insert(ReferenceOr::Item(response));
    }
}

/// Documents the problems that the handler itself answers with, as a step of [`TransformOperation::with`].
pub fn problems(statuses: &'static [u16]) -> impl FnOnce(TransformOperation<'_>) -> TransformOperation<'_> {
    move |mut operation| {
        aide::generate::in_context(|context| document(context, operation.inner_mut(), statuses));
        operation
    }
}
