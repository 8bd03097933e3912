//! `hiresmed-worker`: makes images, one of many. Links ONNX Runtime and no libtorch.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use hiresmed_protocol::{SiteId, job::Kind};
use hiresmed_services::settings::read;
use hiresmed_worker::{
    jobs, program,
    settings::{Overrides, Settings},
    shipped,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A worker of a hiresmed fleet: takes synthesis jobs from the queue until it is asked to stop (SIGTERM), then finishes or hands
/// back what it has
#[derive(Parser)]
#[command(name = "hiresmed-worker", version)]
struct Arguments {
    /// Settings in TOML
    #[arg(long, env = "HIRESMED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Take jobs; what happens without a command
    Work,
    /// Make the store's bucket, put the models that come with the project into it, and its sample series for the site; what is
    /// there is left alone
    Furnish {
        /// The site that gets the sample series
        site: SiteId,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let mut settings = read::<Settings>(arguments.config.as_deref())?;
    arguments.overrides.apply(&mut settings);
    let _export = settings.log.start("hiresmed-worker")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the program cannot start its threads")?;
    runtime.block_on(async {
        if let Some(Command::Furnish { site }) = arguments.command {
            return furnish(&settings, &site).await;
        }
        let drain = CancellationToken::new();
        drain_on_signals(drain.clone())?;
        let services = hiresmed_services::connect(&settings.services).await?;
        program::work(&settings, services, Kind::Synthesise, Arc::new(jobs::run), drain).await
    })
}

async fn furnish(settings: &Settings, site: &SiteId) -> Result<()> {
    let pack =
        shipped::folder().context("there is no infra/pack above this program; name the folder by HIRESMED_PACK")?;
    let store = hiresmed_services::settings::open_store(&settings.services.store).await?;
    store.create().await?;
    shipped::register(&store, site).await?;
    tracing::info!(pack = %pack.display(), %site, "the store is furnished");
    Ok(())
}

/// Cancels `drain` at SIGTERM and Ctrl-C.
fn drain_on_signals(drain: CancellationToken) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop, draining");
        drain.cancel();
    });
    Ok(())
}
