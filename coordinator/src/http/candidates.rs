//! Where a lesion may go in an image of the site: found by a worker while the caller waits, or a little later.

use std::time::Duration;

use aide::{OperationInput, generate::GenContext, openapi::Operation, transform::TransformOperation};
use axum::{
    Json,
    extract::{FromRequest, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use hiresmed_protocol::{
    Event, JobId, Request, RequestId, Verdict,
    outcome::{FoundCandidates, Success},
    parse,
    request::Candidates,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Api,
    caller::{Reader, Submitter},
    document::text_header,
    extract::{BODY, Path},
    problem::{Problem, document, problems},
    requests::{RequestPath, RequestStatus},
    submit::{IdempotencyKey, link, read},
};
use crate::Error;

/// Longest wait for a worker before a caller is told where to ask again; less where answers have to come sooner.
const WAIT: Duration = Duration::from_secs(5);

/// How often the store is asked whether the job is over: an event may be lost.
const LOOK: Duration = Duration::from_secs(1);

/// Seconds after which it is worth asking again.
const RETRY_S: u64 = 2;

/// A request for candidates in JSON, read as everywhere else: with every fault named.
pub struct Wanted(Candidates);

impl<S: Send + Sync> FromRequest<S> for Wanted {
    type Rejection = Problem;

    async fn from_request(request: axum::extract::Request, state: &S) -> Result<Self, Problem> {
        read(request, state, parse::candidates).await.map(Self)
    }
}

impl OperationInput for Wanted {
    fn operation_input(context: &mut GenContext, operation: &mut Operation) {
        axum::Json::<Candidates>::operation_input(context, operation);
        document(context, operation, BODY);
    }
}

/// Where a lesion may go in an image.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CandidatesResult {
    /// The request for them, by which they can be asked for again.
    pub id: RequestId,
    /// What was asked for, every default filled in.
    pub request: Candidates,
    /// What was found.
    pub found: FoundCandidates,
}

/// `POST /v1/candidates`.
pub async fn find(
    State(api): State<Api>,
    caller: Submitter,
    reader: Reader,
    IdempotencyKey(key): IdempotencyKey,
    Wanted(wanted): Wanted,
) -> Result<Response, Problem> {
    let request = Request::Candidates(wanted.clone());
    let (_, status) = api.accept(&caller, key.as_deref(), &request).await?;
    api.candidates(&reader, status.id, wanted).await
}

/// `GET /v1/candidates/{id}`.
pub async fn get(State(api): State<Api>, caller: Reader, Path(path): Path<RequestPath>) -> Result<Response, Problem> {
    api.check_owned(&caller.site, &path.id).await?;
    match api.ledger.request(&path.id).await? {
        Request::Candidates(wanted) => api.candidates(&caller, path.id, wanted).await,
        _ => Err(Problem::not_found(format!("the request `{}` asks for something else than candidates", path.id))),
    }
}

impl Api {
    /// The answer for a request for candidates that is the caller's: what was found, once it is within [`WAIT`].
    async fn candidates(&self, caller: &Reader, id: RequestId, request: Candidates) -> Result<Response, Problem> {
        match self.settled(&id).await? {
            Some(Verdict::Succeeded(Success { candidates: Some(found), .. })) => {
                Ok(Json(CandidatesResult { id, request, found }).into_response())
            }
            Some(Verdict::Succeeded(_)) => {
                Err(Problem::internal(&format!("request {id} has an outcome of another kind")))
            }
            Some(Verdict::Failed(failure) | Verdict::Transient(failure)) => {
                Err(Problem::faults(format!("no candidates can be found: {}", failure.reason), Vec::new()))
            }
            Some(Verdict::Interrupted | Verdict::Cancelled) => {
                let text = format!("request {id} was cancelled; send another `Idempotency-Key` to ask once more");
                Err(Problem::conflict(text))
            }
            None => {
                let status = self.status(&id, self.check_owned(&caller.site, &id).await?).await?;
                let place = format!("/v1/candidates/{id}");
                let headers = [(header::LOCATION, place), (header::RETRY_AFTER, RETRY_S.to_string())];
                Ok((StatusCode::ACCEPTED, headers, Json(status)).into_response())
            }
        }
    }

    /// How the request's one job ended; none where it has not within [`WAIT`].
    async fn settled(&self, id: &RequestId) -> Result<Option<Verdict>, Problem> {
        let job = JobId::candidates(id);
        // Subscribed first, so that nothing is missed between the look and the first event.
        let mut subscription = self.queue.subscribe(&Event::topics_of(id)).await.map_err(Error::from)?;
        let end = Instant::now() + WAIT.min(Duration::from_secs(self.limits.answer_s) / 2);
        loop {
            if let Some(outcome) = self.ledger.outcome(id, &job).await? {
                return Ok(Some(outcome.verdict));
            }
            if self.ledger.cancellation(id).await?.is_some() {
                return Ok(Some(Verdict::Cancelled));
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(end) => return Ok(None),
                () = tokio::time::sleep(LOOK) => {}
                notice = subscription.next() => drop(notice.map_err(Error::from)?),
            }
        }
    }
}

/// Documents [`find`].
pub fn describe_find(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let operation = operation
        .id("find_candidates")
        .tag("inputs")
        .summary("Find where a lesion may go in an image")
        .description(
            "The likeliest positions of a round lesion in an image of the site: inside the body, in no danger zone, by the \
             spatial prior of lesions, a lesion detector, or both (`location`; equation 16). They are the \
             `placement.positions` of a synthesis request of the same size and geometry. The image is looked at as it was \
             uploaded; a background that is made from it may differ by a pixel at the edge of a danger zone. The same body is the same request: sent again, it \
             gives the same answer.",
        )
        .with(problems(&[409, 429]));
    let mut operation = answers(operation);
    let inner = operation.inner_mut();
    if let Some(aide::openapi::ReferenceOr::Item(body)) = &mut inner.request_body {
        body.description = Some("The image, and the lesion for which there should be room.".to_owned());
        if let Some(media) = body.content.get_mut("application/json") {
            media.example = Some(json!({ "version": 1, "input": "sample/a.dcm", "diameter_mm": 8.0, "count": 20 }));
        }
    }
    operation
}

/// Documents [`get`].
pub fn describe_get(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let operation = operation
        .id("get_candidates")
        .tag("inputs")
        .summary("Fetch candidates that were asked for")
        .description("Waits some seconds for them, as the call that asked for them does.")
        .with(problems(&[409, 422]));
    answers(operation)
}

/// Documents what both calls answer.
fn answers(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .response_with::<200, Json<CandidatesResult>, _>(|response| response.description("They are found."))
        .response_with::<202, Json<RequestStatus>, _>(|response| {
            response.description("No worker has found them yet. `Location` says where to ask again.")
        });
    if let Some(responses) = &mut operation.inner_mut().responses
        && let Some(aide::openapi::ReferenceOr::Item(response)) =
            responses.responses.get_mut(&aide::openapi::StatusCode::Code(202))
    {
        for (name, text) in
            [("Location", "The path of the candidates."), ("Retry-After", "Seconds after which to ask again.")]
        {
            let header = aide::openapi::ReferenceOr::Item(text_header(text));
            response.headers.insert(name.to_owned(), header);
        }
        response.links.extend([link("get_candidates")]);
    }
    operation
}
