//! `hiresmed watch`: follows a request, and works for it if nobody does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::{StateArgument, parse_id, submit};
use crate::export;

/// Follow a request to its end, working for it if no other process does
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The request's id, as `submit` gave it
    #[arg(value_name = "ID")]
    id: String,
    /// Folder for the result
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// There is no such request, a folder cannot be used, or the request ended without a result.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let id = parse_id(&arguments.id)?;
    if let Some(out) = &arguments.out {
        export::check(out)?;
    }
    submit::finish(&arguments.state.open()?, &id, arguments.out.as_deref())
}
