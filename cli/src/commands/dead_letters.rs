//! `hiresmed dead-letters`: jobs that failed for good, and another chance for them.

use std::process::ExitCode;

use anyhow::{Result, bail};
use hiresmed_coordinator::status;
use hiresmed_protocol::RequestId;

use super::{StateArgument, parse_id};
use crate::fleet::Fleet;

/// Jobs that failed for good
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List them with their reasons
    List {
        /// Only those of this request
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// A JSON object for each job and line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        state: StateArgument,
    },
    /// Let a request's failed jobs be tried again by the next `watch`
    Retry {
        /// The request's id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        state: StateArgument,
    },
}

/// Runs the command.
///
/// # Errors
/// There is no such request or nothing to retry, or the state folder cannot be used.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    match &arguments.command {
        Command::List { id, json, state } => list(&state.open()?, id.as_deref(), *json),
        Command::Retry { id, state } => retry(&state.open()?, &parse_id(id)?),
    }
}

fn list(fleet: &Fleet, id: Option<&str>, json: bool) -> Result<ExitCode> {
    let ids = match id {
        Some(id) => vec![parse_id(id)?],
        None => fleet.wait(fleet.ledger().requests())?,
    };
    let names = fleet.names();
    for id in ids {
        for letter in fleet.wait(status::dead_letters(fleet.ledger(), &id))? {
            if json {
                println!("{}", serde_json::to_string(&letter)?);
            } else {
                println!("{}  started {} times  {}", letter.job, letter.starts, names.restore(&letter.reason));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn retry(fleet: &Fleet, id: &RequestId) -> Result<ExitCode> {
    let ledger = fleet.ledger();
    let letters = fleet.wait(async {
        ledger.request(id).await?;
        status::dead_letters(ledger, id).await
    })?;
    if letters.is_empty() {
        bail!("request {id} has no failed jobs; `hiresmed status {id}` shows where it stands");
    }
    for letter in &letters {
        fleet.wait(ledger.reopen(id, &letter.job))?;
    }
    fleet.wait(ledger.resume(id))?;
    eprintln!("{} jobs are open again; `hiresmed watch {id}` works for them", letters.len());
    Ok(ExitCode::SUCCESS)
}
