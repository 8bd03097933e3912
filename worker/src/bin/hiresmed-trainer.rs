//! `hiresmed-trainer`: the one program of the fleet that links libtorch.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Parser;
use hiresmed_worker::trainer;

#[derive(Debug, Parser)]
#[command(name = "hiresmed-trainer", version, about = "Trains hiresmed's models in rounds that can be interrupted.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Train a model in one folder; the same command goes on after any interruption.
    Run(trainer::RunOptions),
    /// Write a model package with held-out scores and a card from a checkpoint.
    Package(trainer::PackageOptions),
    /// Work on the training jobs of this machine's queue; `hiresmed train` starts it.
    Consume(trainer::ConsumeOptions),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let result = match arguments.command {
        Command::Run(options) => stop_on_signals().and_then(|stop| trainer::run(options, &stop)),
        Command::Consume(options) => trainer::consume(&options),
        Command::Package(options) => trainer::package(&options).map(|package| println!("{}", package.digest())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A flag that Ctrl-C and SIGTERM set: the step under way is finished and a checkpoint written.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
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
