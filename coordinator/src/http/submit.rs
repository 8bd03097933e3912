//! Submitting a request.

use aide::{OperationInput, generate::GenContext, openapi::Operation, transform::TransformOperation};
use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hiresmed_protocol::{Request, RequestId, parse};
use serde_json::json;

use super::{
    Api,
    caller::Submitter,
    document::{schema, text_header},
    extract::{BODY, broken},
    problem::{Problem, document, problems},
    requests::RequestStatus,
};
use crate::{Error, Planner, clock, exemplars};

/// The header by which a caller says what is the same submission.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest idempotency key in characters.
const LONGEST_KEY: usize = 255;

/// A request in JSON, read as everywhere else: with every fault named.
pub struct Submission(Request);

impl<S: Send + Sync> FromRequest<S> for Submission {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        read(request, state, parse::json).await.map(Self)
    }
}

/// A document in JSON that `parse` reads.
pub(super) async fn read<T, S: Send + Sync>(
    request: axum::extract::Request,
    state: &S,
    parse: impl FnOnce(&str) -> Result<T, parse::Error>,
) -> Result<T, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the request as `application/json`"));
    }
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|rejection| broken(rejection.status(), rejection.body_text()))?;
    let text = str::from_utf8(&body).map_err(|error| Problem::unreadable(format!("not UTF-8: {error}")))?;
    parse(text).map_err(|error| match error {
        parse::Error::Faults(faults) => Error::Refused(faults).into(),
        error @ parse::Error::Text { .. } => Problem::unreadable(error.to_string()),
    })
}

impl OperationInput for Submission {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<Request>::operation_input(context, operation);
        document(context, operation, BODY);
    }
}

/// What a caller says is the same submission.
pub struct IdempotencyKey(pub(super) Option<String>);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, _: &S) -> Result<Self, Problem> {
        read_key(&parts.headers).map(Self)
    }
}

fn read_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // `to_str` lets tabs through, the description does not.
    let text = value.to_str().unwrap_or("");
    if text.is_empty() || text.len() > LONGEST_KEY || text.contains('\t') {
        let detail = format!("`Idempotency-Key` must be 1 to {LONGEST_KEY} visible ASCII characters");
        return Err(Problem::unreadable(detail));
    }
    Ok(Some(text.to_owned()))
}

impl OperationInput for IdempotencyKey {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        let text = schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": LONGEST_KEY,
            "pattern": "^[!-~]([ -~]*[!-~])?$" });
        let parameter_data = aide::openapi::ParameterData {
            name: "Idempotency-Key".to_owned(),
            description: Some(
                "What is the same submission: the same key gives the same request, and with another body a conflict. \
                 Without it, the same body is the same request."
                    .to_owned(),
            ),
            required: false,
            deprecated: None,
            format: aide::openapi::ParameterSchemaOrContent::Schema(schema(text)),
            example: Some(json!("lung-nodules-2026-03")),
            examples: Default::default(),
            explode: None,
            extensions: Default::default(),
        };
        let style = aide::openapi::HeaderStyle::Simple;
        let parameter = aide::openapi::Parameter::Header { parameter_data, style };
        operation.parameters.push(aide::openapi::ReferenceOr::Item(parameter));
        document(context, operation, &[400]);
    }
}

/// `POST /v1/requests`.
pub async fn submit(
    State(api): State<Api>,
    caller: Submitter,
    IdempotencyKey(key): IdempotencyKey,
    Submission(request): Submission,
) -> Result<Response, Problem> {
    let (known, status) = api.accept(&caller, key.as_deref(), &request).await?;
    let code = if known { StatusCode::OK } else { StatusCode::CREATED };
    Ok((code, [(header::LOCATION, status.links.itself.clone())], Json(status)).into_response())
}

impl Api {
    /// Accepts a request of the caller's site, as its quotas allow: whether it was known before, and where it stands.
    pub(super) async fn accept(
        &self,
        caller: &Submitter,
        key: Option<&str>,
        request: &Request,
    ) -> Result<(bool, RequestStatus), Problem> {
        let site = &caller.site;
        let id = RequestId::derive(request, site, key);
        let _turn = self.usage.turn(site).await;
        let known = match self.ledger.request(&id).await {
            Ok(known) if known != *request => {
                let text = format!("the idempotency key was used for another request, `{id}`; choose another key");
                return Err(Problem::conflict(text));
            }
            Ok(_) => true,
            Err(Error::UnknownRequest(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if !known {
            self.check_name(request, caller).await?;
            let quotas = self.sites.get(site).await?.map(|site| site.quotas).unwrap_or_default();
            self.usage.check_request(site, &quotas, request).await?;
            let planner = Planner::new(self.ledger.clone(), site.clone());
            match planner.submit_as(id.clone(), request).await {
                Ok(_) | Err(Error::Waiting { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Also for a known one: the coordinator that accepted it may have died before it came to this.
        self.ledger.own(site, &id, &clock::now()).await?;
        let status = self.status(&id, self.check_owned(site, &id).await?).await?;
        if status.is_open() {
            self.supervisor.submit(site, &id).await?;
        }
        Ok((known, status))
    }

    /// Models are every site's, and so are their names: who trains takes over no name but an own one.
    async fn check_name(&self, request: &Request, caller: &Submitter) -> Result<(), Problem> {
        let Request::Train(train) = request else { return Ok(()) };
        let claimed = async || self.ledger.claim(train.model, &train.name, &caller.site).await;
        if caller.operates || (!exemplars::is_alias(&train.name) && claimed().await?) {
            return Ok(());
        }
        let text = format!(
            "a {} model of another site, or of the fleet, is called `{}`; train under another name, or with an operator's key",
            train.model, train.name
        );
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

/// Calls that take the id of what was submitted.
const FOLLOWING: [&str; 3] = ["get_request", "list_results", "cancel_request"];

pub(super) fn link(operation: &str) -> (String, aide::openapi::ReferenceOr<aide::openapi::Link>) {
    let link = aide::openapi::Link {
        operation: aide::openapi::LinkOperation::OperationId(operation.to_owned()),
        description: None,
        request_body: None,
        parameters: [("id".to_owned(), json!("$response.body#/id"))].into_iter().collect(),
        server: None,
        extensions: Default::default(),
    };
    (operation.to_owned(), aide::openapi::ReferenceOr::Item(link))
}

/// Documents [`submit`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("submit_request")
        .tag("requests")
        .summary("Submit a request")
        .description(
            "Work begins at once, as quotas and other sites' work allow; for an unbounded request it begins when its \
                      stream is read, goes on a bounded number of images ahead of its slowest reader, and ends when it is \
                      cancelled. A request that names exemplars of the site as lesion models (`exemplars/{digest}`) is `waiting` until \
                      each has a model: that is trained once, by a request of its own. A cancelled request stays cancelled: \
                      to have the same images made again, send another `Idempotency-Key`.",
        )
        .response_with::<201, Json<RequestStatus>, _>(|response| response.description("Accepted now."))
        .response_with::<200, Json<RequestStatus>, _>(|response| response.description("Accepted before; nothing new."))
        .with(problems(&[409, 429]));
    let inner = operation.inner_mut();
    if let Some(aide::openapi::ReferenceOr::Item(body)) = &mut inner.request_body {
        body.description = Some("The request in JSON; `kind` chooses what is asked for.".to_owned());
    }
    if let Some(aide::openapi::ReferenceOr::Item(body)) = &mut inner.request_body
        && let Some(media) = body.content.get_mut("application/json")
    {
        media.example = Some(json!({
            "version": 1, "kind": "synthesise", "name": "lung nodules", "count": 12,
            "lesions": { "count": { "min": 1, "max": 3 }, "diameter_mm": { "min": 4.0, "max": 12.0 } }
        }));
    }
    if let Some(responses) = &mut inner.responses {
        for code in [200, 201] {
            let found = responses.responses.get_mut(&aide::openapi::StatusCode::Code(code));
            if let Some(aide::openapi::ReferenceOr::Item(response)) = found {
                let location = text_header("The path of the request.");
                response.headers.insert("Location".to_owned(), aide::openapi::ReferenceOr::Item(location));
                response.links.extend(FOLLOWING.map(link));
            }
        }
    }
    operation
}
