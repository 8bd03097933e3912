//! `hiresmed deliver`: synthetic images into a PACS.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use hiresmed_imaging::dicom::ReadOptions;

use crate::{
    deliver::{self, Address, Ended, Http, Order, Outcome, Patience, Sources},
    failure, signals,
};

const REPORT: &str = "delivery.jsonl";

/// Store synthetic images in an archive (PACS) by DICOMweb, and see that they are there
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// DICOM files, or folders with some at any depth, such as an export
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Root of the archive's DICOMweb services, as in `https://pacs.example/dicom-web`
    #[arg(long, value_name = "URL")]
    to: String,
    /// Send DICOM files too that do not say that they are synthetic and made by this program: a patient's, perhaps
    #[arg(long)]
    any: bool,
    /// Record of what became of each file, by which a second run goes on [default: delivery.jsonl in the first folder, or
    /// beside the first file]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    credentials: Sources,
    /// File with further certificate authorities, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Allow plain HTTP to another machine: images and credentials can be read on their way
    #[arg(long)]
    insecure_http: bool,
    /// MiB in a request, unless one file is larger
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096), value_name = "MIB")]
    batch_mib: u64,
    /// Requests at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16), value_name = "N")]
    connections: u64,
    /// How often a request is made again where the archive is away or busy
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=100), value_name = "N")]
    retries: u32,
    /// Seconds before the second attempt; they double with each, up to a minute
    #[arg(long, default_value_t = 0.5, value_parser = seconds, value_name = "SECONDS")]
    first_wait: f64,
    /// Seconds without a byte after which a connection counts as broken
    #[arg(long, default_value_t = 300.0, value_parser = seconds, value_name = "SECONDS")]
    silence: f64,
    /// Seconds for which what was stored is searched for: some archives index late
    #[arg(long, default_value_t = 60.0, value_parser = seconds, value_name = "SECONDS")]
    check_for: f64,
    /// Largest file, in MiB
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=16_384), value_name = "MIB")]
    limit_mib: u64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("give 0 to 86400".to_owned()) }
}

/// Runs the command.
///
/// # Errors
/// Something that was given cannot be used, the archive cannot be reached or takes nothing, or the record cannot be written. A file
/// that the archive refuses is no error: the record says why, the rest goes on, and the exit code is 2; it is 1 where files are not
/// found afterwards.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let address = Address::parse(&arguments.to, arguments.insecure_http)?;
    let authorization = arguments.credentials.authorization(&address)?;
    if authorization.is_some() && !address.is_secure() && arguments.insecure_http {
        eprintln!("warning: credentials go over plain HTTP");
    }
    let silence = Duration::from_secs_f64(arguments.silence.max(1.0));
    let http = Http::new(arguments.ca.as_deref(), authorization, silence)?;
    let report = arguments.report.clone().unwrap_or_else(|| beside(&arguments.paths));
    let ended = deliver::deliver(Order {
        paths: &arguments.paths,
        any: arguments.any,
        options: ReadOptions { limit_bytes: arguments.limit_mib << 20 },
        report: &report,
        address,
        http,
        patience: Patience { retries: arguments.retries, first_wait: Duration::from_secs_f64(arguments.first_wait) },
        batch_bytes: arguments.batch_mib << 20,
        connections: usize::try_from(arguments.connections).unwrap_or(1),
        check_for: Duration::from_secs_f64(arguments.check_for),
    })?;
    conclude(ended, &report)
}

/// The record's place where none is named.
fn beside(paths: &[PathBuf]) -> PathBuf {
    let first = paths.first().map_or(Path::new("."), PathBuf::as_path);
    if first.is_dir() { first.join(REPORT) } else { first.with_file_name(REPORT) }
}

fn conclude(ended: Ended, report: &Path) -> Result<ExitCode> {
    let count = |outcome| ended.counts.get(&outcome).copied().unwrap_or_default();
    eprintln!("{}", summary(&ended.counts, ended.before, ended.others));
    let [unsure, refused] = [
        [Outcome::Stored, Outcome::Missing, Outcome::Failed, Outcome::Unsent].map(count).iter().sum::<usize>(),
        [Outcome::Refused, Outcome::LeftOut, Outcome::Unreadable].map(count).iter().sum(),
    ];
    if unsure + refused > 0 {
        eprintln!("{} says why, a line a file", report.display());
    }
    println!("{}", report.display());
    if ended.stopped {
        eprintln!("stopped; the same command goes on");
        return Ok(ExitCode::from(signals::INTERRUPTED));
    }
    if let Some(error) = ended.error {
        return Err(error).context("the delivery ended early; the same command goes on");
    }
    Ok(match (unsure, refused) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(failure::REFUSED),
        _ => ExitCode::from(failure::FAILED),
    })
}

/// `12 files are there, 2 of them from before; 1 refused by the archive`: what there is none of is not said.
fn summary(counts: &BTreeMap<Outcome, usize>, before: usize, others: usize) -> String {
    let there = counts.get(&Outcome::Verified).copied().unwrap_or_default();
    let mut text = format!("{there} files stored and found in the archive, {before} of them by earlier runs");
    for (outcome, what) in [
        (Outcome::Stored, "stored and not searched for yet"),
        (Outcome::Missing, "stored as the archive said and not found there"),
        (Outcome::Refused, "refused by the archive"),
        (Outcome::Failed, "without a clear answer"),
        (Outcome::Unsent, "not sent yet"),
        (Outcome::LeftOut, "left out: they do not say that they are synthetic"),
        (Outcome::Unreadable, "unreadable"),
        (Outcome::Duplicate, "the same as others"),
    ] {
        if let Some(count) = counts.get(&outcome) {
            text.push_str(&format!("; {count} {what}"));
        }
    }
    if others > 0 {
        text.push_str(&format!("; {others} that are no DICOM passed over"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_there_is() {
        assert_eq!(
            summary(&BTreeMap::from([(Outcome::Verified, 12), (Outcome::Refused, 1)]), 2, 3),
            "12 files stored and found in the archive, 2 of them by earlier runs; 1 refused by the archive; 3 that are no DICOM passed over"
        );
        assert_eq!(
            summary(&BTreeMap::new(), 0, 0),
            "0 files stored and found in the archive, 0 of them by earlier runs"
        );
    }

    #[test]
    fn the_record_lies_with_what_is_delivered() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(beside(&[folder.path().to_path_buf()]), folder.path().join(REPORT));
        assert_eq!(beside(&[folder.path().join("a.dcm")]), folder.path().join(REPORT));
    }
}
