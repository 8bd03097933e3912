//! How a command ends: its exit code, and what it says when it fails.

use std::process::ExitCode;

/// Ended without the result that was asked for.
pub const FAILED: u8 = 1;
/// What was given is refused: arguments, a request, inputs.
pub const REFUSED: u8 = 2;

/// An error in what was given, not in the doing.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Refused(anyhow::Error);

/// Marks an error as one in what was given.
pub fn refused(error: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Refused(error.into()))
}

/// Tells a person what went wrong and why, and gives the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("{}", text(error));
    ExitCode::from(if is_refusal(error) { REFUSED } else { FAILED })
}

fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Refused>()
            || cause.downcast_ref::<hiresmed_coordinator::Error>().is_some_and(hiresmed_coordinator::Error::is_refusal)
    })
}

/// `error: what` and a line for each cause. A cause that its own effect has quoted is not said twice.
fn text(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            text.push_str(&format!("\n  cause: {cause}"));
        }
        last = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn causes_are_listed_once() {
        let error = anyhow!("disk full").context("a.dcm cannot be written: disk full").context("export failed");
        assert_eq!(text(&error), "error: export failed\n  cause: a.dcm cannot be written: disk full");
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        assert!(!is_refusal(&anyhow!("broken")));
        assert!(is_refusal(&Err::<(), _>(refused(anyhow!("count = 0"))).context("request.toml").unwrap_err()));
        let unknown = hiresmed_coordinator::Error::NoFiles {
            path: "inputs".to_owned(),
            source_name: "a".to_owned(),
            what: "images",
            prefix: "sites/local/inputs/a/".to_owned(),
        };
        assert!(is_refusal(&anyhow::Error::new(unknown)));
    }
}
