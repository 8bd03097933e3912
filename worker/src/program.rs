//! A worker as a process of its own: services, status, the loop.

use std::{net::TcpListener, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};
use hiresmed_inference::{Provider, Runtime, Session};
use hiresmed_protocol::job::Kind;
use hiresmed_services::{Services, queue::Declaration};
use hiresmed_telemetry::Metrics;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Environment, Worker,
    busy::{self, Busy},
    consumer::Runner,
    jobs,
    settings::{Settings, queues},
    status,
};

/// Works on jobs of `kind` until SIGTERM or Ctrl-C, then finishes or hands back what runs.
///
/// # Errors
/// Threads cannot be started, a service is not there; as [`work`].
pub fn run(settings: &Settings, kind: Kind) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the program cannot start its threads")?;
    runtime.block_on(async {
        let drain = CancellationToken::new();
        drain_on_signals(drain.clone())?;
        let services = hiresmed_services::connect(&settings.services).await?;
        work(settings, services, kind, Arc::new(jobs::run), drain).await
    })
}

/// Cancels `drain` at SIGTERM and Ctrl-C.
///
/// # Errors
/// The signals cannot be heard.
pub fn drain_on_signals(drain: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to stop, draining");
        drain.cancel();
    });
    Ok(())
}

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
    // Asked before work is taken: a machine without its device must not fail other people's jobs.
    let provider = device(settings, kind)?;
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
    let busy = match kind {
        Kind::TrainRound => Busy::Trainings(settings.permits.into()),
        _ => Busy::Networks { provider, threads },
    };
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
            () = busy::measure(metrics.clone(), busy) => Ok(()),
        }
    };
    tokio::select! {
        worked = worker.run(&queues, &drain) => worked.context("the worker stopped")?,
        served = aside => served.context("health and metrics cannot be served")?,
    }
    info!("drained");
    Ok(())
}

/// Where networks run, once it is known that they can.
fn device(settings: &Settings, kind: Kind) -> Result<Provider> {
    let provider = settings.provider().map_err(|cause| anyhow!("setting `device`: {cause}"))?;
    if kind != Kind::TrainRound {
        let memory = settings.memory_mib.map(|mib| mib.saturating_mul(1 << 20));
        Session::check_provider(&Runtime::load_within(provider, memory)?, provider)?;
    } else if provider != Provider::Cpu {
        bail!("setting `device`: this program trains on `cpu` alone, not on `{}`", settings.device);
    } else {
        // A prior's tokens are made by it, and finished models are judged through it: known now, and not after the last step.
        Runtime::load()?;
    }
    Ok(provider)
}
