//! `hiresmed status`: where requests stand.

use std::process::ExitCode;

use anyhow::Result;
use hiresmed_coordinator::status;

use super::{StateArgument, parse_id};

/// List requests and where they stand
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only this request
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// A JSON object for each request and line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// There is no such request, or the state folder cannot be used.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let fleet = arguments.state.open()?;
    let ids = match &arguments.id {
        Some(id) => vec![parse_id(id)?],
        None => fleet.wait(fleet.ledger().requests())?,
    };
    for id in ids {
        let status = fleet.wait(status::of(fleet.ledger(), &id))?;
        if arguments.json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            let name = status.name.as_deref().unwrap_or("");
            let failed = if status.failed > 0 { format!(", {} failed", status.failed) } else { String::new() };
            println!("{id}  {:9}  {}/{} {}{failed}  {name}", status.word(), status.done, status.asked(), status.unit);
        }
    }
    Ok(ExitCode::SUCCESS)
}
