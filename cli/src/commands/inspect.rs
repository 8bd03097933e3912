//! `hiresmed inspect`: what is in an image file, or why it cannot be read.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use hiresmed_imaging::inspect;

use crate::failure;

/// Decode image files and describe them
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// DICOM files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A JSON object for each file and line, in order
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Standard output is closed. A file that is refused is no error: its line says why, and the exit code is 2.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut refused = false;
    for file in &arguments.files {
        let inspection = inspect::inspect(file);
        refused |= !inspection.ok;
        let value = serde_json::to_value(&inspection)?;
        if arguments.json {
            serde_json::to_writer(&mut out, &inspection)?;
            writeln!(out)?;
        } else {
            for (key, value) in value.as_object().into_iter().flatten() {
                if !value.is_null() {
                    writeln!(out, "{key:22} {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))?;
                }
            }
            writeln!(out)?;
        }
        out.flush()?;
    }
    Ok(if refused { ExitCode::from(failure::REFUSED) } else { ExitCode::SUCCESS })
}
