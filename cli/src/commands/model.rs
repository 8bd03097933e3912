//! `hiresmed model`: the model packages of this machine, and bringing one that was made elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hiresmed_inference::{Runtime, package};
use hiresmed_protocol::{Digest, keys};
use hiresmed_worker::shipped;
use serde::Serialize;

use super::{StateArgument, sample};
use crate::{failure, fleet::Fleet};

/// Model packages
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the packages that requests can name
    List {
        /// One JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArgument,
    },
    /// Draw whole images, without lesions, from a ddpm, a styleswin or a singan-whole
    Sample(sample::Arguments),
    /// Check a model.json with its ONNX graphs, made elsewhere, and take it as a package
    Import {
        /// The folder with model.json
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        state: StateArgument,
    },
}

/// A package as the list shows it.
#[derive(Debug, Serialize)]
struct Row {
    kind: String,
    name: String,
    digest: String,
    parameters: u64,
    /// Path of the model card, where there is one.
    card: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The state folder cannot be used, or the model does not fit its kind.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        Command::List { json, state } => list(&state.open()?, *json),
        Command::Sample(arguments) => sample::run(arguments),
        Command::Import { folder, state } => import(&state.open()?, folder),
    }
}

fn list(fleet: &Fleet, json: bool) -> Result<ExitCode> {
    let rows = rows(fleet)?;
    if json {
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    for row in rows {
        println!("{:15} {:24} {:.12} {:>10} parameters", row.kind, row.name, row.digest, row.parameters);
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(fleet: &Fleet) -> Result<Vec<Row>> {
    let environment = fleet.environment();
    let mut rows = Vec::new();
    for key in fleet.wait(fleet.store().list("models/"))? {
        let parts: Vec<_> = key.split('/').collect();
        let ["models", kind, digest, "model.json"] = parts[..] else { continue };
        let bytes = fleet.wait(fleet.store().get(&key))?;
        let description: package::Description = serde_json::from_slice(&bytes)
            .with_context(|| format!("the package {key} was written by another version"))?;
        let folder = environment.package_folder(kind, &digest.parse::<Digest>()?)?;
        rows.push(Row {
            kind: kind.to_owned(),
            name: description.name,
            digest: digest.to_owned(),
            parameters: description.parameters,
            card: Some(folder.join(package::CARD_FILE)).filter(|path| path.is_file()),
        });
    }
    Ok(rows)
}

fn import(fleet: &Fleet, folder: &std::path::Path) -> Result<ExitCode> {
    let runtime = Runtime::load()?;
    let staging = tempfile::tempdir_in(fleet.state().root()).context("the state folder cannot be written")?;
    let package = package::import(folder, staging.path(), &runtime)
        .map_err(failure::refused)
        .with_context(|| format!("the model in {} is refused", folder.display()))?;
    let kind = package.kind().name();
    let before = fleet.wait(async {
        shipped::package(fleet.store(), package.directory(), kind, package.digest()).await?;
        let before = fleet.store().get(&keys::alias(kind, package.name())).await;
        shipped::alias(fleet.store(), kind, package.name(), package.digest()).await?;
        anyhow::Ok(before.ok())
    })?;
    if let Some(before) = before.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        && before != package.digest()
    {
        eprintln!("warning: {} named {before} until now; requests can still name that by its digest", package.name());
    }
    println!("{}", package.digest());
    eprintln!("requests can name it as {kind} = \"{}\"", package.name());
    Ok(ExitCode::SUCCESS)
}
