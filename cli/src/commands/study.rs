//! `hiresmed study`: reader studies (visual Turing tests).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use hiresmed_scores::study::{self, Study};

use crate::failure;

/// Reader studies: can readers tell synthetic images from real ones?
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Score readings: rates, agreement and exact tests for each reader and between readers
    Score {
        /// CSV file with the columns reader, image, truth and answer; truth and answer are real or synthetic
        #[arg(value_name = "READINGS.csv")]
        readings: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// The readings have faults; all are listed with their lines.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Command::Score { readings, json } = &arguments.command;
    let study = study::score(&study::read(readings).map_err(failure::refused)?);
    if *json {
        println!("{}", serde_json::to_string(&study)?);
    } else {
        print!("{}", table(&study));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(study: &Study) -> String {
    let names = study.readers.iter().map(|reader| reader.reader.chars().count());
    let width = names.max().unwrap_or(0).max(6);
    let mut text = format!(
        "{:width$}  {:>5} {:>5} {:>5} {:>5} {:>5} {:>11} {:>11} {:>8} {:>11} {:>19} {:>9}\n",
        "reader",
        "n",
        "tp",
        "fn",
        "fp",
        "tn",
        "sensitivity",
        "specificity",
        "accuracy",
        "kappa_truth",
        "p_accuracy_binomial",
        "p_mcnemar"
    );
    for reader in &study.readers {
        let counts = reader.counts;
        text.push_str(&format!(
            "{:width$}  {:>5} {:>5} {:>5} {:>5} {:>5} {:>11} {:>11} {:>8} {:>11} {:>19.3e} {:>9.3e}\n",
            reader.reader,
            reader.n,
            counts.tp,
            counts.fn_,
            counts.fp,
            counts.tn,
            ratio(reader.sensitivity),
            ratio(reader.specificity),
            ratio(reader.accuracy),
            ratio(reader.kappa_truth),
            reader.p_accuracy_binomial,
            reader.p_mcnemar
        ));
    }
    for pair in &study.between {
        let (a, b, kappa) = (&pair.a, &pair.b, ratio(pair.kappa));
        text.push_str(&format!("between {a} and {b}: kappa {kappa}, p_mcnemar {:.3e}\n", pair.p_mcnemar));
    }
    text
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}
