//! What orchestrators and Prometheus ask a worker: `/healthz`, `/readyz`, `/metrics`. Plain HTTP without any data of sites.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hiresmed_services::{Services, queue::Queue, store::Store};
use hiresmed_telemetry::{Metrics, metrics::CONTENT_TYPE};
use tokio_util::sync::CancellationToken;

use crate::disk;

/// Longest wait for a service that is asked whether it is there.
const WAIT: Duration = Duration::from_secs(3);

/// What the answers are made from.
#[derive(Clone)]
struct Worker {
    queue: Arc<dyn Queue>,
    store: Arc<dyn Store>,
    /// A queue that it works on.
    name: String,
    scratch: PathBuf,
    metrics: Metrics,
    drain: CancellationToken,
}

/// Answers at `listener` until the task is dropped.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    services: &Services,
    queue: String,
    scratch: &Path,
    metrics: Metrics,
    drain: CancellationToken,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let (broker, store) = (services.queue.clone(), services.store.clone());
    let worker = Worker { queue: broker, store, name: queue, scratch: scratch.to_path_buf(), metrics, drain };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(worker);
    axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
}

/// 200 while jobs are taken; 503 while the worker drains, its disk cannot be written, or a service does not answer.
async fn ready(State(worker): State<Worker>) -> Response {
    if worker.drain.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if let Err(error) = disk::probe(worker.scratch.clone()).await {
        tracing::warn!(%error, "not ready");
        return (StatusCode::SERVICE_UNAVAILABLE, "the disk cannot be written; the log has the cause\n")
            .into_response();
    }
    let queue = async { worker.queue.depth(&worker.name).await.map(drop).map_err(|error| error.to_string()) };
    let store = async { worker.store.head("fleet/ready").await.map(drop).map_err(|error| error.to_string()) };
    match tokio::time::timeout(WAIT, futures::future::try_join(queue, store)).await {
        Ok(Ok(_)) => "ok\n".into_response(),
        answer => {
            let cause = answer.map_or_else(|_| "no answer".to_owned(), |answer| answer.err().unwrap_or_default());
            tracing::warn!(cause, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the queue or the store does not answer; the log has the cause\n")
                .into_response()
        }
    }
}

async fn metrics_text(State(worker): State<Worker>) -> Response {
    match worker.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
