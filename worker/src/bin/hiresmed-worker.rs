//! `hiresmed-worker`: makes images, one of many. Links ONNX Runtime and no libtorch.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use hiresmed_protocol::job::Kind;
use hiresmed_telemetry::logging::{self, Format};
use hiresmed_worker::{
    jobs, program,
    settings::{Overrides, Settings},
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
    let mut settings = Settings::read(arguments.config.as_deref())?;
    arguments.overrides.apply(&mut settings);
    let format = if settings.log.human { Format::Human } else { Format::Json };
    logging::start(format, &settings.log.filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the program cannot start its threads")?;
    runtime.block_on(async {
        let drain = CancellationToken::new();
        drain_on_signals(drain.clone())?;
        let services = hiresmed_services::connect(&settings.services).await?;
        program::work(&settings, services, Kind::Synthesise, Arc::new(jobs::run), drain).await
    })
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
