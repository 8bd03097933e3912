//! The `hiresmed` command: requests, models and images on one machine, with the whole fleet in this process.
//!
//! This crate owns what a person types and reads: arguments, progress, errors with their next step, exit codes, and the
//! folders that results are written into. What a request means and how it is done is elsewhere.

// First: the others use its macros.
#[macro_use]
mod output;

mod candidates;
mod commands;
mod deliver;
mod demo;
mod export;
mod failure;
mod fleet;
mod intake;
mod labels;
mod progress;
mod report;
mod signals;
mod stamp;
mod state;
mod trainer;
mod watcher;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use hiresmed_telemetry::logging;

use commands::{
    cancel, dead_letters, deliver as deliver_command, export as export_command, ingest, inspect, model, score, status,
    study, submit, train, watch,
};

/// Labelled synthetic medical images, made by models that are trained on your own.
#[derive(Debug, Parser)]
#[command(name = "hiresmed", version)]
struct Arguments {
    /// What is logged to standard error: a level, or levels by part, as in `hiresmed_worker=debug,info`
    #[arg(long, global = true, env = "HIRESMED_LOG", default_value = "error", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Submit(submit::Arguments),
    Watch(watch::Arguments),
    Cancel(cancel::Arguments),
    Status(status::Arguments),
    Export(export_command::Arguments),
    Deliver(deliver_command::Arguments),
    DeadLetters(dead_letters::Arguments),
    Candidates(candidates::Arguments),
    Ingest(ingest::Arguments),
    Inspect(inspect::Arguments),
    Score(score::Arguments),
    Study(study::Arguments),
    Train(train::Arguments),
    Model(model::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    signals::survive_size_limits();
    let ended = logging::start(logging::Format::Human, &arguments.log)
        .map_err(failure::refused)
        .and_then(|()| run(&arguments.command));
    match ended {
        Ok(code) => code,
        Err(error) => failure::report(&error),
    }
}

fn run(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Submit(arguments) => submit::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Cancel(arguments) => cancel::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Export(arguments) => export_command::run(arguments),
        Command::Deliver(arguments) => deliver_command::run(arguments),
        Command::DeadLetters(arguments) => dead_letters::run(arguments),
        Command::Candidates(arguments) => candidates::run(arguments),
        Command::Ingest(arguments) => ingest::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Score(arguments) => score::run(arguments),
        Command::Study(arguments) => study::run(arguments),
        Command::Train(arguments) => train::run(arguments),
        Command::Model(arguments) => model::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        super::Arguments::command().debug_assert();
    }
}
