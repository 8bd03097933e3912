//! `hiresmed demo`: the main job, end to end, on the sample that comes with the project.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hiresmed_coordinator::Ending;
use hiresmed_protocol::parse;
use hiresmed_worker::shipped;

use crate::{
    commands::{DeviceArgument, conclude},
    export, failure,
    fleet::Fleet,
    report, signals,
    state::StateFolder,
};

/// How a demo whose result could not be written goes on: its state lies in the output folder, where no other command looks.
const AGAIN: &str = "free space or put right what is said below, and run the same command again";

/// Make labelled synthetic lung CT, or radiographs with kidney stones, from what comes with the project
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Folder for the images, masks, labels and report.html
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many images
    #[arg(long, default_value_t = 12)]
    count: u64,
    /// From which all randomness is derived
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What to make: lung CT with nodules, or radiographs of kidneys, ureters and bladder with stones, on phantoms
    #[arg(long, value_enum, default_value_t = Modality::Ct)]
    modality: Modality,
    /// Where backgrounds come from: slices of the sample series, or the prior that comes with the project, for patients whom nobody is
    #[arg(long, value_enum, default_value_t = Background::Reconstruct)]
    background: Background,
    #[command(flatten)]
    device: DeviceArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Modality {
    Ct,
    Kub,
}

impl Modality {
    /// The request's own lines.
    fn lines(self) -> String {
        match self {
            Self::Ct => "name = \"hiresmed demo: lung CT with nodules\"\n".to_owned(),
            Self::Kub => format!(
                "name = \"hiresmed demo: radiographs with kidney stones\"\nmodality = \"kub\"\nblend = \"attenuation\"\n\
                 size = {{ width = 1024, height = 1024 }}\ninputs = \"{}\"\n",
                shipped::PHANTOM
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Background {
    Reconstruct,
    Sample,
}

/// Runs the command.
///
/// # Errors
/// The output folder cannot be written, or no image could be made.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let started = Instant::now();
    if shipped::folder().is_none() {
        bail!(
            "the models and the sample that come with the project were not found; set HIRESMED_PACK to the project's infra/pack"
        );
    }
    let mode = match arguments.background {
        Background::Reconstruct => "reconstruct",
        Background::Sample => "sample",
    };
    if (arguments.modality, arguments.background) == (Modality::Kub, Background::Sample) {
        bail!("no prior for radiographs comes with the project; leave --background out, or set --modality ct");
    }
    let text = format!(
        "version = 1\nkind = \"synthesise\"\n{}count = {}\nseed = {}\nbackground.mode = \"{mode}\"\n",
        arguments.modality.lines(),
        arguments.count,
        arguments.seed
    );
    let request = parse::toml(&text).map_err(failure::refused)?;
    export::check(&arguments.out)?;
    // The demo's own state, beside its result: a demo that was killed goes on, and a finished one leaves nothing behind.
    let state = arguments.out.join(".state");
    let fleet = Fleet::open(StateFolder::open(Some(&state))?, arguments.device.device)?;
    let id = fleet.submit(&request)?.request;
    let ending = fleet.finish(&id)?;
    if let Ending::Completed { images, .. } = &ending
        && *images > 0
    {
        let manifest = export::export(&fleet, &id, &arguments.out, AGAIN)?;
        drop(fleet);
        std::fs::remove_dir_all(&state).with_context(|| format!("{} cannot be removed", state.display()))?;
        let lesions: usize = manifest.images.iter().map(|image| image.lesions.len()).sum();
        println!("{images} images with {lesions} lesions in {:.0} s", started.elapsed().as_secs_f64());
        println!("{}", arguments.out.join(report::FILE).display());
    }
    // The state is the demo's own: what others may do with a request's id does not help here.
    match ending {
        Ending::Completed { .. } => conclude(&id, &ending),
        Ending::Stopped => {
            eprintln!("stopped; the same command goes on");
            Ok(ExitCode::from(signals::INTERRUPTED))
        }
        Ending::Failed { reason } | Ending::Aborted { reason } | Ending::Cancelled { reason } => {
            let state = state.display();
            bail!("the demo ended early: {reason}; put that right, remove {state}, and run the same command again")
        }
    }
}
