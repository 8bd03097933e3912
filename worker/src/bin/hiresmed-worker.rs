//! `hiresmed-worker`: makes images, one of many. Links ONNX Runtime and no libtorch.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use hiresmed_protocol::{SiteId, job::Kind};
use hiresmed_services::settings::read;
use hiresmed_worker::{
    program,
    settings::{Overrides, Settings},
    shipped,
};

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
    match arguments.command {
        None | Some(Command::Work) => program::run(&settings, Kind::Synthesise),
        Some(Command::Furnish { site }) => furnish(&settings, &site),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn furnish(settings: &Settings, site: &SiteId) -> Result<()> {
    let pack =
        shipped::folder().context("there is no infra/pack above this program; name the folder by HIRESMED_PACK")?;
    let store = hiresmed_services::settings::open_store(&settings.services.store).await?;
    store.create().await?;
    shipped::register(&store, site).await?;
    tracing::info!(pack = %pack.display(), %site, "the store is furnished");
    Ok(())
}
