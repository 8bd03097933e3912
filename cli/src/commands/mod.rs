//! The commands, a file each.

pub mod cancel;
pub mod dead_letters;
pub mod deliver;
pub mod export;
pub mod ingest;
pub mod inspect;
pub mod model;
pub mod sample;
pub mod score;
pub mod status;
pub mod study;
pub mod submit;
pub mod train;
pub mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use hiresmed_coordinator::Ending;
use hiresmed_inference::Provider;
use hiresmed_protocol::{RequestId, request::Modality};

use crate::{failure, fleet::Fleet, signals, state::StateFolder};

/// Where the state lies: the same for every command that has one.
#[derive(Debug, clap::Args)]
pub struct StateArgument {
    /// Folder with the store and the queue [default: $HIRESMED_STATE, else $XDG_STATE_HOME/hiresmed, else
    /// ~/.local/state/hiresmed]
    #[arg(long = "state", value_name = "DIR")]
    root: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgument,
}

/// What kind of image.
#[derive(Debug, clap::Args)]
pub struct ModalityArgument {
    /// Kind of image: an axial CT slice, or a radiograph of kidneys, ureters and bladder
    #[arg(long = "modality", value_enum, default_value_t = Kind::Ct)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Ct,
    Kub,
}

impl ModalityArgument {
    /// As requests name it.
    pub fn modality(&self) -> Modality {
        match self.kind {
            Kind::Ct => Modality::Ct,
            Kind::Kub => Modality::Kub,
        }
    }
}

/// Where networks run.
#[derive(Debug, clap::Args)]
pub struct DeviceArgument {
    /// Where networks run: cpu, cuda, or cuda:N for the Nth NVIDIA device (after `make runtimes-cuda`)
    #[arg(long, value_name = "DEVICE", env = "HIRESMED_DEVICE", default_value = "cpu")]
    pub device: Provider,
}

impl StateArgument {
    /// Opens the fleet of the state folder.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn open(&self) -> Result<Fleet> {
        Fleet::open(StateFolder::open(self.root.as_deref())?, self.device.device)
    }
}

/// Says how a request ended, and gives the exit code.
///
/// # Errors
/// It ended without a result.
pub fn conclude(id: &RequestId, ending: &Ending) -> Result<ExitCode> {
    match ending {
        Ending::Completed { failures, .. } => {
            if *failures > 0 {
                eprintln!("warning: {failures} images could not be made; the manifest lists them with their reasons");
            }
            Ok(ExitCode::SUCCESS)
        }
        // Data and inputs were taken as they were: what is put right in them makes another request.
        Ending::Failed { reason } => bail!(
            "training {id} failed: {reason}\n  \
             Where the data or the arguments are at fault, put them right and repeat the `hiresmed train` command.\n  \
             Where this machine was (disk, memory), `hiresmed dead-letters retry {id}`, then repeat it."
        ),
        Ending::Aborted { reason } => bail!(
            "request {id} ended early: {reason}\n  \
             Where the request or its inputs are at fault, put them right and submit it again: that is another request.\n  \
             Where this machine was (disk, memory, a damaged model), `hiresmed dead-letters retry {id}`, then \
             `hiresmed watch {id}`."
        ),
        Ending::Cancelled { reason } => bail!("request {id} ended early: {reason}; submit it again to go on"),
        Ending::Stopped => {
            eprintln!("stopped; `hiresmed watch {id}` goes on");
            Ok(ExitCode::from(signals::INTERRUPTED))
        }
    }
}

/// An id that a person typed.
///
/// # Errors
/// It is none.
pub fn parse_id(text: &str) -> Result<RequestId> {
    text.parse().map_err(failure::refused)
}
