//! Why a job did not succeed, sorted once by the job itself.

use hiresmed_inference::session::is_short_of_memory;
use hiresmed_protocol::outcome::{self, Stage, Verdict};
use hiresmed_services::store;

/// Why a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Trying again would fail again: bad input, an impossible request, a package whose digest is wrong.
    #[error("{reason}")]
    Permanent {
        /// The stage that failed, if one did.
        stage: Option<Stage>,
        /// The cause, with the file or model that it concerns and the next step, for people.
        reason: String,
    },
    /// Trying again later may succeed: a store that does not answer, a full disk.
    #[error("{reason}")]
    Transient {
        /// The stage that failed, if one did.
        stage: Option<Stage>,
        /// The cause, for people.
        reason: String,
    },
    /// The networks needed more memory than there was: with fewer images at a time, or on another worker, it may succeed.
    #[error("{reason}")]
    Memory {
        /// The stage that failed, if one did.
        stage: Option<Stage>,
        /// The cause, for people.
        reason: String,
    },
    /// The worker is asked to stop; the job is handed back as it was.
    #[error("the worker was asked to stop")]
    Interrupted,
    /// The request was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
}

impl Failure {
    /// A permanent failure at `stage`, with the error and its causes as the reason; one of memory, where that is the cause.
    pub fn permanent(stage: Stage, error: impl Into<anyhow::Error>) -> Self {
        let (stage, reason) = (Some(stage), reason(&error.into()));
        if is_short_of_memory(&reason) { Self::Memory { stage, reason } } else { Self::Permanent { stage, reason } }
    }

    /// A transient failure at `stage`, with the error and its causes as the reason.
    pub fn transient(stage: Stage, error: impl Into<anyhow::Error>) -> Self {
        Self::Transient { stage: Some(stage), reason: reason(&error.into()) }
    }

    /// The same failure, as one of `stage` where it has none.
    #[must_use]
    pub fn at(self, at: Stage) -> Self {
        match self {
            Self::Permanent { stage, reason } => Self::Permanent { stage: stage.or(Some(at)), reason },
            Self::Transient { stage, reason } => Self::Transient { stage: stage.or(Some(at)), reason },
            Self::Memory { stage, reason } => Self::Memory { stage: stage.or(Some(at)), reason },
            other => other,
        }
    }

    /// The failure as the protocol records it.
    pub fn into_verdict(self) -> Verdict {
        match self {
            Self::Permanent { stage, reason } => Verdict::Failed(outcome::Failure { stage, reason }),
            Self::Transient { stage, reason } | Self::Memory { stage, reason } => {
                Verdict::Transient(outcome::Failure { stage, reason })
            }
            Self::Interrupted => Verdict::Interrupted,
            Self::Cancelled => Verdict::Cancelled,
        }
    }
}

/// An object that is missing or damaged stays so; a full disk, a permission or a lost connection may be put right.
impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        let passes =
            matches!(error, store::Error::Backend { .. } | store::Error::Full { .. } | store::Error::Denied { .. });
        let reason = reason(&anyhow::Error::new(error));
        if passes { Self::Transient { stage: None, reason } } else { Self::Permanent { stage: None, reason } }
    }
}

/// An error with its causes in one line. A cause that its own effect has quoted is not said twice.
fn reason(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !last.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        last = cause;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stage_named_is_kept() {
        let failure = Failure::permanent(Stage::Inputs, anyhow::anyhow!("cause")).at(Stage::Outputs);
        assert_eq!(failure, Failure::Permanent { stage: Some(Stage::Inputs), reason: "cause".to_owned() });
        let bare = Failure::Transient { stage: None, reason: String::new() }.at(Stage::Outputs);
        assert_eq!(bare, Failure::Transient { stage: Some(Stage::Outputs), reason: String::new() });
        assert_eq!(Failure::Cancelled.at(Stage::Inputs), Failure::Cancelled);
    }

    #[test]
    fn short_memory_is_nobodys_fault() {
        let error = anyhow::anyhow!("Available memory of 1024 is smaller than requested bytes of 2048");
        let failure = Failure::permanent(Stage::Background, error.context("the decoder failed"));
        assert!(matches!(&failure, Failure::Memory { stage: Some(Stage::Background), .. }), "{failure:?}");
        assert!(matches!(failure.into_verdict(), Verdict::Transient(_)));
    }

    #[test]
    fn the_reason_holds_every_cause() {
        let error = anyhow::anyhow!("disk full").context("image.dcm cannot be written");
        let Verdict::Failed(failure) = Failure::permanent(Stage::Outputs, error).into_verdict() else { panic!() };
        assert_eq!(failure.reason, "image.dcm cannot be written: disk full");
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_said_once() {
        let colour = hiresmed_imaging::Error::new("a.png", hiresmed_imaging::Fault::Colour("RGB".into()));
        let Verdict::Failed(failure) = Failure::permanent(Stage::Inputs, colour).into_verdict() else { panic!() };
        assert_eq!(failure.reason.matches("a grey image is needed").count(), 1, "{}", failure.reason);
    }
}
