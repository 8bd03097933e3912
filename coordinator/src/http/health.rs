//! For orchestrators and Prometheus.

use std::time::Duration;

use aide::transform::TransformOperation;
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use hiresmed_protocol::keys;
use hiresmed_telemetry::metrics::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::warn;

use super::{
    Api,
    document::body,
    problem::{Problem, problems},
};
use crate::dispatcher;

/// Longest wait for a service that is asked whether it is there.
const WAIT: Duration = Duration::from_secs(3);

/// How the coordinator is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
}

/// `GET /healthz`.
pub async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Documents [`alive`].
pub fn describe_alive(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("check_health").tag("health").summary("Whether the process answers").with(problems(&[503]))
}

/// `GET /readyz`.
pub async fn ready(State(api): State<Api>) -> Result<Json<Health>, Problem> {
    let store =
        async { api.ledger.store().head(&format!("{}local", keys::SITES)).await.map_err(|error| error.to_string()) };
    let queues = dispatcher::queues();
    let queue = async {
        let name = queues.first().map_or("", String::as_str);
        api.queue.depth(name).await.map_err(|error| error.to_string())
    };
    let answers = tokio::time::timeout(WAIT, futures::future::try_join(store, queue)).await;
    match answers.unwrap_or_else(|_| Err(format!("no answer within {} s", WAIT.as_secs()))) {
        Ok(_) => Ok(Json(Health { status: "ok" })),
        Err(cause) => {
            warn!(cause, "not ready");
            Err(Problem::away("the store or the queue does not answer; the log has the cause"))
        }
    }
}

/// Documents [`ready`].
pub fn describe_ready(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation
        .id("check_readiness")
        .tag("health")
        .summary("Whether the store and the queue can be reached")
        .with(problems(&[503]))
}

/// `GET /metrics`.
pub async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    api.supervisor.observe(&api.metrics);
    let text = api.metrics.render().map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

/// Documents [`metrics`].
pub fn describe_metrics(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("get_metrics")
        .tag("health")
        .summary("Metrics in Prometheus' text format")
        .with(problems(&[500, 503]));
    let response = body("text/plain", "Metrics.", schemars::json_schema!({ "type": "string" }));
    let responses = operation.inner_mut().responses.get_or_insert_default();
    responses.responses.insert(aide::openapi::StatusCode::Code(200), aide::openapi::ReferenceOr::Item(response));
    operation
}
