//! `hiresmed cancel`: ends a request early.

use std::process::ExitCode;

use anyhow::Result;

use super::{StateArgument, parse_id};

/// End a request early; what it made stays and can be exported
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The request's id
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// There is no such request, or the state folder cannot be used.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let id = parse_id(&arguments.id)?;
    arguments.state.open()?.cancel(&id)?;
    eprintln!("cancelled; a worker stops after the image or step it is at");
    Ok(ExitCode::SUCCESS)
}
