//! Jobs that failed for good, of all sites, and what operators decide about them.

use aide::transform::TransformOperation;
use axum::{Json, extract::State, http::StatusCode};
use hiresmed_protocol::{JobId, RequestId, SiteId, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    caller::Operator,
    extract::{Path, Query},
    problem::{Problem, problems},
    requests::foreign_cursor,
};
use crate::status;

/// Dead letters of a page at most, but all those of one request are on one page.
const PAGE: usize = 100;

/// Requests that are looked through for one page at most.
const SCANNED: usize = 200;

/// A job that failed for good.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DeadLetter {
    /// The job.
    pub job: JobId,
    /// Its request.
    pub request: RequestId,
    /// The site that asked.
    pub site: SiteId,
    /// Why it failed.
    pub reason: String,
    /// How often it was started.
    pub starts: usize,
}

/// A page of dead letters.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DeadLetterPage {
    /// Dead letters by site, request and job. A page may be empty and not the last: requests without any are looked through
    /// too.
    pub items: Vec<DeadLetter>,
    /// Send it as `cursor` for the next page; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadLetterQuery {
    /// Only those of this site. Default: of all.
    pub site: Option<SiteId>,
    /// The previous page's `next_cursor`; none for the first page.
    pub cursor: Option<String>,
}

/// The name of a job in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct JobPath {
    /// The job's id.
    pub job: JobId,
}

/// `GET /v1/dead-letters`.
pub async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<DeadLetterQuery>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let after: Option<(SiteId, RequestId)> = query.cursor.as_deref().map(read_cursor).transpose()?;
    let sites = match query.site {
        Some(site) => vec![site],
        None => api.sites.list().await?,
    };
    let mut page = DeadLetterPage { items: Vec::new(), next_cursor: None };
    let mut scanned = 0;
    for site in sites {
        if after.as_ref().is_some_and(|(last, _)| site < *last) {
            continue;
        }
        for request in api.ledger.requests_of(&site).await? {
            if after.as_ref().is_some_and(|(last, done)| site == *last && request <= *done) {
                continue;
            }
            let letters = status::dead_letters(&api.ledger, &request).await?;
            page.items.extend(letters.into_iter().map(|letter| DeadLetter {
                job: letter.job,
                request: letter.request,
                site: site.clone(),
                reason: letter.reason,
                starts: letter.starts,
            }));
            scanned += 1;
            if page.items.len() >= PAGE || scanned >= SCANNED {
                page.next_cursor = Some(format!("{site}.{request}"));
                return Ok(Json(page));
            }
        }
    }
    Ok(Json(page))
}

fn read_cursor(cursor: &str) -> Result<(SiteId, RequestId), Problem> {
    let (site, request) = cursor.split_once('.').ok_or_else(foreign_cursor)?;
    match (site.parse(), request.parse()) {
        (Ok(site), Ok(request)) => Ok((site, request)),
        _ => Err(foreign_cursor()),
    }
}

/// Documents [`list`].
pub fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("list_dead_letters").tag("operation").summary("List jobs that failed for good")
}

impl Api {
    /// The request of a job that is a dead letter.
    async fn dead_letter(&self, job: &JobId) -> Result<RequestId, Problem> {
        let unknown = || Problem::not_found(format!("there is no dead letter `{job}`; list them"));
        let (request, _) = job.as_str().rsplit_once('-').ok_or_else(unknown)?;
        let request: RequestId = request.parse().map_err(|_| unknown())?;
        let outcome = self.ledger.outcome(&request, job).await?.ok_or_else(unknown)?;
        let dead = matches!(outcome.verdict, Verdict::Failed(_));
        if dead && !self.ledger.is_discarded(&request, job).await? { Ok(request) } else { Err(unknown()) }
    }
}

/// `POST /v1/dead-letters/{job}/retry`.
pub async fn retry(State(api): State<Api>, _: Operator, Path(path): Path<JobPath>) -> Result<StatusCode, Problem> {
    let request = api.dead_letter(&path.job).await?;
    match api.ledger.cancellation(&request).await? {
        Some(cancellation) if !cancellation.failed => {
            return Err(Problem::conflict(format!("request {request} was cancelled: its jobs are not tried again")));
        }
        Some(_) => api.ledger.resume(&request).await?,
        None => {}
    }
    let site = api.plans.get(&request).await?.site.clone();
    api.ledger.reopen(&request, &path.job).await?;
    api.supervisor.submit(&site, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Documents [`retry`].
pub fn describe_retry(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("retry_dead_letter")
        .tag("operation")
        .summary("Let a job be tried again")
        .description("Its earlier attempts stay as history and count no more; its request is open again.")
        .response_with::<204, (), _>(|response| response.description("It is dispatched again."))
        .with(problems(&[409]))
}

/// `DELETE /v1/dead-letters/{job}`.
pub async fn discard(State(api): State<Api>, _: Operator, Path(path): Path<JobPath>) -> Result<StatusCode, Problem> {
    let request = api.dead_letter(&path.job).await?;
    api.ledger.discard(&request, &path.job).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Documents [`discard`].
pub fn describe_discard(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("discard_dead_letter")
        .tag("operation")
        .summary("Take a job off the list")
        .description("The job stays failed.")
        .response_with::<204, (), _>(|response| response.description("It is off the list."))
}
