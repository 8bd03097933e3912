//! A part of a fleet as a process that tests start and kill: `fleet-part coordinator|worker CONFIG [MILLISECONDS]`.
//!
//! The coordinator dispatches what the store says is open. The worker is the real one, with a stand-in for the work that takes so
//! many milliseconds an image.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use hiresmed_coordinator::{Supervisor, dispatcher};
use hiresmed_protocol::job::Kind;
use hiresmed_services::{Services, settings::read};
use hiresmed_tests::imitation::imitate_slowly;
use hiresmed_worker::{consumer::Runner, program, settings::Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [part, config, rest @ ..] = &arguments[..] else {
        bail!("usage: fleet-part coordinator|worker CONFIG [MILLISECONDS]")
    };
    let settings = read::<Settings>(Some(Path::new(config)))?;
    let _export = settings.log.start("fleet-part")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(part, rest, settings))
}

async fn run(part: &str, rest: &[String], settings: Settings) -> Result<()> {
    let services = connect(&settings).await;
    let stop = CancellationToken::new();
    let (mut terminate, token) = (signal(SignalKind::terminate())?, stop.clone());
    tokio::spawn(async move {
        terminate.recv().await;
        token.cancel();
    });
    match part {
        "coordinator" => coordinate(services, stop).await,
        "worker" => {
            let time = Duration::from_millis(rest.first().map_or(Ok(0), |text| text.parse())?);
            let runner: Arc<Runner> = Arc::new(move |environment, context| imitate_slowly(environment, context, time));
            program::work(&settings, services, Kind::Synthesise, runner, stop).await
        }
        other => bail!("there is no part `{other}`"),
    }
}

/// As an orchestrator does with a program that ended because a service was away: tries again.
async fn connect(settings: &Settings) -> Services {
    loop {
        match hiresmed_services::connect(&settings.services).await {
            Ok(services) => return services,
            Err(error) => tracing::warn!(%error, "services are away, trying again"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn coordinate(services: Services, stop: CancellationToken) -> Result<()> {
    let options = dispatcher::Options { window: 32, lost: Duration::from_secs(3), ..dispatcher::Options::default() };
    let supervisor = Supervisor::new(&services, options, stop.clone());
    while let Err(error) = supervisor.start().await {
        tracing::warn!(%error, "services are away, trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.cancelled().await;
    supervisor.stopped().await;
    Ok(())
}
