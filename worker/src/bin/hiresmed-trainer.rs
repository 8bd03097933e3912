//! `hiresmed-trainer`: the one program of the fleet that links libtorch.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Result;
use clap::Parser;
use hiresmed_protocol::job::Kind;
use hiresmed_services::settings::read;
use hiresmed_telemetry::logging;
use hiresmed_worker::{
    program,
    settings::{Overrides, Settings},
    trainer,
};

#[derive(Debug, Parser)]
#[command(name = "hiresmed-trainer", version, about = "Trains hiresmed's models in rounds that can be interrupted.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Take the training jobs of a fleet until asked to stop (SIGTERM), then finish the step and keep its checkpoint.
    Work(WorkOptions),
    /// Train a model in one folder; the same command goes on after any interruption.
    Run(trainer::RunOptions),
    /// Write a model package with held-out scores and a card from a checkpoint.
    Package(trainer::PackageOptions),
    /// Train an autoencoder with HDFB and with residual blocks, and tell what each takes to reach the same loss and fidelity.
    Compare(trainer::CompareOptions),
    /// Work on the training jobs of this machine's queue; `hiresmed train` starts it.
    Consume(trainer::ConsumeOptions),
}

#[derive(Debug, clap::Args)]
struct WorkOptions {
    /// Settings in TOML, the same as a worker's
    #[arg(long, env = "HIRESMED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let mut settings = Settings { log: logging::Settings { human: true, ..Default::default() }, ..Settings::default() };
    if let Command::Work(options) = &command {
        settings = read(options.config.as_deref())?;
        options.overrides.clone().apply(&mut settings);
    }
    let _export = settings.log.start("hiresmed-trainer")?;
    match command {
        Command::Work(_) => {
            hiresmed_models::training::set_threads(settings.threads().try_into().unwrap_or(i32::MAX));
            program::run(&settings, Kind::TrainRound)
        }
        Command::Run(options) => trainer::run(options, &*stop_on_signals()?),
        Command::Compare(options) => trainer::compare(&options),
        Command::Consume(options) => trainer::consume(&options),
        Command::Package(options) => trainer::package(&options).map(|package| println!("{}", package.digest())),
    }
}

/// A flag that Ctrl-C and SIGTERM set: the step under way is finished and a checkpoint written.
fn stop_on_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _guard = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
