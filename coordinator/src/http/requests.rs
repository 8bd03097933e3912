//! Requests as sites see them: listing, standing, cancelling.

use aide::transform::TransformOperation;
use axum::{Json, extract::State};
use hiresmed_protocol::{Request, RequestId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api,
    caller::{Reader, Submitter},
    extract::{Path, Query},
    problem::{Problem, problems},
};
use crate::{Error, status};

/// Entries of a page where the caller does not say.
const PAGE: u32 = 20;

/// Entries of a page at most: each means a look at the request's jobs.
const LONGEST_PAGE: u32 = 100;

/// Where a request stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RequestStatus {
    /// The request.
    pub id: RequestId,
    /// Its name for people, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is asked for.
    pub kind: Kind,
    /// Where it stands.
    pub state: Standing,
    /// What `total`, `done` and `failed` count.
    pub unit: Unit,
    /// Images or steps asked for; none for an unbounded request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Images or steps made. The results of images that are made can be fetched, whatever the state.
    pub done: u64,
    /// Images that could not be made; for training 1 where a round failed.
    pub failed: u64,
    /// Why it ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was accepted, UTC, RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    pub created_at: String,
    /// Where more is.
    pub links: Links,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Synthetic, labelled images.
    Synthesise,
    /// A trained model.
    Train,
    /// Where a lesion may go in an image.
    Candidates,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "RequestState")]
pub enum Standing {
    /// Its lesion models are trained first; these trainings are requests of the site as well.
    Waiting,
    /// Work is left to do. An unbounded request is open until it is cancelled, or nothing comes of it any more,
    /// whether or not somebody reads it.
    Open,
    /// Everything that was asked for is there.
    Complete,
    /// Over, and some of it could not be made.
    Failures,
    /// Ended early: by a person, because an image failed and the request says `on_failure = "stop"`, or because job after job of
    /// an unbounded request made no image.
    Cancelled,
}

/// What a request's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Images of a synthesis request; the one image of a request for candidates.
    Images,
    /// Optimiser steps of a training request.
    Steps,
}

/// Paths below the API's own address.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Links {
    /// The request itself.
    #[serde(rename = "self")]
    pub itself: String,
    /// What happens to it, as server-sent events.
    pub events: String,
    /// Its images with their files.
    pub results: String,
    /// Its images as a WebDataset tar stream.
    pub stream: String,
}

/// A request with where it stands.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RequestDetail {
    /// Where it stands.
    pub status: RequestStatus,
    /// The request as it was accepted, every default filled in.
    pub request: Request,
}

/// A page of requests.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RequestPage {
    /// Requests in the order of their ids.
    pub items: Vec<RequestStatus>,
    /// Send it as `cursor` for the next page; none on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which page of a listing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Entries at most: 1 to 100. Default 20.
    #[serde(default = "page")]
    #[schemars(range(min = 1, max = 100))]
    pub limit: u32,
    /// The previous page's `next_cursor`; none for the first page.
    pub cursor: Option<String>,
}

fn page() -> u32 {
    PAGE
}

impl PageQuery {
    /// The limit as a number of entries.
    ///
    /// # Errors
    /// A problem of status 400 where it is out of range.
    pub fn checked(&self) -> Result<usize, Problem> {
        if (1..=LONGEST_PAGE).contains(&self.limit) {
            return Ok(self.limit as usize);
        }
        Err(Problem::unreadable(format!("`limit` = {}: must be 1 to {LONGEST_PAGE}", self.limit)))
    }
}

/// The name of a request in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RequestPath {
    /// The request's id.
    pub id: RequestId,
}

impl Api {
    /// Where a request stands, as its site sees it.
    pub(super) async fn status(&self, id: &RequestId, created_at: String) -> Result<RequestStatus, Error> {
        let status = status::of(&self.ledger, id).await?;
        let path = format!("/v1/requests/{id}");
        let kind = match status.kind {
            "train" => Kind::Train,
            "candidates" => Kind::Candidates,
            _ => Kind::Synthesise,
        };
        Ok(RequestStatus {
            id: id.clone(),
            kind,
            state: state(&status),
            unit: if kind == Kind::Train { Unit::Steps } else { Unit::Images },
            total: status.total,
            done: status.done,
            failed: status.failed,
            name: status.name,
            reason: status.cancelled,
            created_at,
            links: Links {
                events: format!("{path}/events"),
                results: format!("{path}/results"),
                stream: format!("{path}/stream"),
                itself: path,
            },
        })
    }
}

impl RequestStatus {
    /// Whether work is left to do.
    pub fn is_open(&self) -> bool {
        matches!(self.state, Standing::Open | Standing::Waiting)
    }
}

fn state(status: &status::Status) -> Standing {
    if status.cancelled.is_some() {
        Standing::Cancelled
    } else if status.waiting {
        Standing::Waiting
    } else if !status.is_over() {
        Standing::Open
    } else if status.failed > 0 {
        Standing::Failures
    } else {
        Standing::Complete
    }
}

/// `GET /v1/requests`.
pub async fn list(
    State(api): State<Api>,
    caller: Reader,
    Query(query): Query<PageQuery>,
) -> Result<Json<RequestPage>, Problem> {
    let limit = query.checked()?;
    let mut ids = api.ledger.requests_of(&caller.site).await?;
    if let Some(cursor) = &query.cursor {
        let last: RequestId = cursor.parse().map_err(|_| foreign_cursor())?;
        ids.retain(|id| *id > last);
    }
    let next_cursor = (ids.len() > limit).then(|| ids[limit - 1].to_string());
    ids.truncate(limit);
    let mut items = Vec::new();
    for id in ids {
        let created_at = api.check_owned(&caller.site, &id).await?;
        match api.status(&id, created_at).await {
            Ok(status) => items.push(status),
            // Accepted at this moment, or its documents were removed by hand.
            Err(Error::UnknownRequest(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Json(RequestPage { items, next_cursor }))
}

/// A cursor is what a page gave, and nothing else.
pub fn foreign_cursor() -> Problem {
    Problem::unreadable("`cursor` is not one that a page gave; leave it out for the first page")
}

/// Documents [`list`].
pub fn describe_list(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("list_requests").tag("requests").summary("List the site's requests")
}

/// `GET /v1/requests/{id}`.
pub async fn get(
    State(api): State<Api>,
    caller: Reader,
    Path(path): Path<RequestPath>,
) -> Result<Json<RequestDetail>, Problem> {
    let created_at = api.check_owned(&caller.site, &path.id).await?;
    let status = api.status(&path.id, created_at).await?;
    Ok(Json(RequestDetail { status, request: api.ledger.request(&path.id).await? }))
}

/// Documents [`get`].
pub fn describe_get(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("get_request").tag("requests").summary("Where a request stands, and what it asks for")
}

/// `POST /v1/requests/{id}/cancel`.
pub async fn cancel(
    State(api): State<Api>,
    caller: Submitter,
    Path(path): Path<RequestPath>,
) -> Result<Json<RequestStatus>, Problem> {
    let created_at = api.check_owned(&caller.site, &path.id).await?;
    match api.supervisor.cancel(&caller.site, &path.id, "cancelled by its site").await {
        // Cancelled before: the answer to the first call may have been lost.
        Err(Error::Over { .. }) if api.ledger.cancellation(&path.id).await?.is_some() => {}
        other => other?,
    }
    Ok(Json(api.status(&path.id, created_at).await?))
}

/// Documents [`cancel`].
pub fn describe_cancel(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("cancel_request")
        .tag("requests")
        .summary("End a request early")
        .description(
            "Workers stop after the image or step that they are at. What was made stays and can be fetched. It is how an \
                      unbounded request ends, and its streams with it. \
                      Cancelling once more is harmless; a request that is complete is a conflict.",
        )
        .with(problems(&[409]))
}
