//! The HTTP API of the coordinator, by which sites submit requests and fetch results, and operators run the fleet.
//!
//! A file for each kind of resource; [`problem`] has every failure, `caller` who may do what, `document` the OpenAPI
//! description, which is made from the handlers' own types.

mod caller;
mod candidates;
mod dead_letters;
mod document;
mod events;
mod exemplars;
mod extract;
mod health;
mod inputs;
mod models;
mod plans;
pub mod problem;
mod quota;
mod reader;
mod requests;
mod results;
mod sites;
mod stream;
mod submit;
mod tar;
mod upload;

use std::{
    any::Any,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use aide::{
    axum::{
        ApiRouter,
        routing::{delete_with, get_with, post_with, put_with},
    },
    openapi::OpenApi,
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hiresmed_protocol::{RequestId, SiteId, keys};
use hiresmed_services::{queue::Queue, store::Store};
use hiresmed_telemetry::Metrics;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use self::{plans::Plans, problem::Problem, quota::Usage};
use crate::{Error, Ledger, Sites, Supervisor, status};

/// Bounds on what a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest JSON document that is taken.
    pub document_bytes: usize,
    /// Largest input file or exemplar that is taken.
    pub upload_bytes: u64,
    /// Longest time until an answer begins, in seconds; uploads may take longer as long as bytes arrive.
    pub answer_s: u64,
    /// Longest time without a byte of an upload, in seconds.
    pub idle_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { document_bytes: 1 << 20, upload_bytes: 2 << 30, answer_s: 60, idle_s: 30 }
    }
}

/// What every handler works with. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// The insides of [`Api`].
pub struct Shared {
    ledger: Ledger,
    queue: Arc<dyn Queue>,
    sites: Sites,
    supervisor: Supervisor,
    plans: Plans,
    usage: Usage,
    metrics: Metrics,
    limits: Limits,
    stop: CancellationToken,
}

impl Deref for Api {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    /// The API on a store and a queue. Event and tar streams end with `stop`.
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        supervisor: Supervisor,
        metrics: Metrics,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        let ledger = Ledger::new(store);
        let sites = Sites::new(ledger.clone());
        let plans = Plans::new(ledger.clone());
        let usage = Usage::new(ledger.clone(), supervisor.ahead());
        Self(Arc::new(Shared { ledger, queue, sites, supervisor, plans, usage, metrics, limits, stop }))
    }

    /// Answers 404 unless the request is the site's: whether another site has it is nobody's business.
    async fn check_owned(&self, site: &SiteId, request: &RequestId) -> Result<String, Problem> {
        match self.ledger.owned(site, request).await? {
            Some(owned) => Ok(owned.created_at),
            None => Err(Problem::not_found(format!("there is no request `{request}`"))),
        }
    }

    /// Whether nothing more comes of a request. Asked often, so the mark of what is open is looked at first.
    async fn is_over(&self, site: &SiteId, request: &RequestId) -> Result<bool, Error> {
        let marked = self.ledger.store().head(&keys::open(site, request)).await?.is_some();
        if marked {
            return Ok(false);
        }
        // Asked before everything is counted: a cancelled request may have made many images.
        let cancelled = self.ledger.cancellation(request).await?.is_some();
        Ok(cancelled || status::of(&self.ledger, request).await?.is_over())
    }
}

/// The routes of the API with everything around them.
pub fn router(api: &Api) -> Router {
    let (documented, description) = documented(api);
    let text = document::text(&description);
    documented
        .route("/v1/openapi.json", axum::routing::get(move || std::future::ready(document::response(&text))))
        .fallback(async || Problem::not_found("there is nothing at this path; /v1/openapi.json says what there is"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the header `Allow` says which methods there are")
        })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(api.clone(), measured))
        .layer(TraceLayer::new_for_http())
        .with_state(api.clone())
}

/// The routes that are described, with their description.
fn documented(api: &Api) -> (Router<Api>, OpenApi) {
    let mut description = document::begin();
    let routes = quick(api).merge(uploads()).finish_api_with(&mut description, document::describe);
    (routes, document::finish(description))
}

/// Calls with small bodies, which are answered within [`Limits::answer_s`].
fn quick(api: &Api) -> ApiRouter<Api> {
    ApiRouter::new()
        .api_route("/healthz", get_with(health::alive, health::describe_alive))
        .api_route("/readyz", get_with(health::ready, health::describe_ready))
        .api_route("/metrics", get_with(health::metrics, health::describe_metrics))
        .api_route(
            "/v1/requests",
            post_with(submit::submit, submit::describe).get_with(requests::list, requests::describe_list),
        )
        .api_route("/v1/requests/{id}", get_with(requests::get, requests::describe_get))
        .api_route("/v1/requests/{id}/cancel", post_with(requests::cancel, requests::describe_cancel))
        .api_route("/v1/requests/{id}/events", get_with(events::get, events::describe))
        .api_route("/v1/requests/{id}/results", get_with(results::list, results::describe_list))
        .api_route("/v1/requests/{id}/files/{name}", get_with(results::file, results::describe_file))
        .api_route("/v1/requests/{id}/stream", get_with(stream::get, stream::describe))
        .api_route("/v1/candidates", post_with(candidates::find, candidates::describe_find))
        .api_route("/v1/candidates/{id}", get_with(candidates::get, candidates::describe_get))
        .api_route("/v1/models", get_with(models::list, models::describe))
        .api_route("/v1/site", get_with(sites::own, sites::describe_own))
        .api_route("/v1/dead-letters", get_with(dead_letters::list, dead_letters::describe_list))
        .api_route("/v1/dead-letters/{job}", delete_with(dead_letters::discard, dead_letters::describe_discard))
        .api_route("/v1/dead-letters/{job}/retry", post_with(dead_letters::retry, dead_letters::describe_retry))
        .api_route("/v1/sites", get_with(sites::list, sites::describe_list))
        .api_route(
            "/v1/sites/{site}",
            put_with(sites::put, sites::describe_put).get_with(sites::get, sites::describe_get),
        )
        .api_route(
            "/v1/sites/{site}/keys",
            post_with(sites::create_key, sites::describe_create_key).get_with(sites::keys, sites::describe_keys),
        )
        .api_route("/v1/sites/{site}/keys/{key}", delete_with(sites::revoke, sites::describe_revoke))
        .layer(DefaultBodyLimit::max(api.limits.document_bytes))
        .layer(middleware::from_fn_with_state(api.clone(), answer_in_time))
}

/// Calls with large bodies. They bound themselves, by size and by the time without a byte.
fn uploads() -> ApiRouter<Api> {
    ApiRouter::new()
        .api_route("/v1/inputs/{source}/{sha256}", put_with(inputs::put, inputs::describe))
        .api_route("/v1/inputs/{source}/{sha256}/masks/{mask}", put_with(inputs::put_mask, inputs::describe_mask))
        .api_route("/v1/exemplars", post_with(exemplars::create, exemplars::describe))
        .layer(DefaultBodyLimit::disable())
}

/// Counts calls by route. What has no route, and methods that nobody knows, share one name each: callers choose them.
async fn measured(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    api.metrics.call_answered(method, &route, response.status().as_u16(), started.elapsed().as_secs_f64());
    response
}

async fn answer_in_time(State(api): State<Api>, request: Request, next: Next) -> Response {
    let longest = Duration::from_secs(api.limits.answer_s);
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::away(format!("no answer within {} s; try again", longest.as_secs())).into_response(),
    }
}

fn panicked(cause: Box<dyn Any + Send>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str).or(cause.downcast_ref::<&str>().copied());
    Problem::internal(&text.unwrap_or("a handler panicked")).into_response()
}

#[cfg(test)]
mod tests;
