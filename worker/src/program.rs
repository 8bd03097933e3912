//! A worker as a process of its own: services, status, the loop.

use std::{net::TcpListener, sync::Arc};

use anyhow::{Context, Result, anyhow};
use hiresmed_inference::{Runtime, Session};
use hiresmed_protocol::job::Kind;
use hiresmed_services::{Services, queue::Declaration};
use hiresmed_telemetry::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Environment, Worker, busy,
    consumer::Runner,
    settings::{Settings, queues},
    status,
};

/// Works on jobs of `kind` with `runner` until `drain` is cancelled and what runs is finished or handed back.
///
/// # Errors
/// The device or the address cannot be used, or a service stays out of order.
pub async fn work(
    settings: &Settings,
    services: Services,
    kind: Kind,
    runner: Arc<Runner>,
    drain: CancellationToken,
) -> Result<()> {
    let provider = settings.provider().map_err(|cause| anyhow!("setting `device`: {cause}"))?;
    if kind == Kind::Synthesise {
        // Asked before work is taken: a machine without its device must not fail other people's jobs.
        Session::check_provider(&Runtime::load_for(provider)?, provider)?;
    }
    let queues = queues(kind);
    for queue in &queues {
        // Declared here too: a fleet's parts start in any order.
        services.queue.declare(&Declaration::new(queue)).await?;
    }
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen at {address}; choose another address with --listen"))?;
    let local = listener.local_addr()?;
    let (metrics, threads) = (Metrics::new()?, settings.threads());
    let environment = Environment::new(services.store.clone(), services.cache.clone(), &settings.scratch, threads)
        .on(provider)
        .observed(metrics.clone());
    let worker = Worker {
        name: settings.name(),
        queue: services.queue.clone(),
        environment: Arc::new(environment),
        runner,
        permits: settings.permits.max(1),
        alone: false,
    };
    info!(name = worker.name, %kind, device = provider.name(), status = %local, "working");
    let first = queues.first().cloned().unwrap_or_default();
    let aside = async {
        tokio::select! {
            served = status::serve(listener, &services, first, &settings.scratch, metrics.clone(), drain.clone()) => served,
            () = busy::measure(metrics.clone(), threads) => Ok(()),
        }
    };
    tokio::select! {
        worked = worker.run(&queues, &drain) => worked.context("the worker stopped")?,
        served = aside => served.context("health and metrics cannot be served")?,
    }
    info!("drained");
    Ok(())
}
