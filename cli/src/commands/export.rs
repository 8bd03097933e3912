//! `hiresmed export`: writes a request's result into a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use hiresmed_coordinator::delivery;

use super::{StateArgument, parse_id, submit};
use crate::export;

/// Write the images, masks and labels that a request has made
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The request's id
    #[arg(value_name = "ID")]
    id: String,
    /// Folder for the result
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// There is no such request, or the folder cannot be written.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let id = parse_id(&arguments.id)?;
    let fleet = arguments.state.open()?;
    if let Some(delivery) = fleet.wait(delivery::assemble(fleet.ledger(), &id))?
        && delivery.missing > 0
    {
        eprintln!("warning: {} images are not made yet; `hiresmed watch {id}` makes them", delivery.missing);
    }
    let manifest = export::export(&fleet, &id, &arguments.out, &submit::again(&id))?;
    eprintln!("{} images written", manifest.images.len());
    println!("{}", arguments.out.join(export::MANIFEST).display());
    Ok(ExitCode::SUCCESS)
}
