//! The trainer, a program of its own because it alone links libtorch: found beside this one, started, kept running.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::state::StateFolder;

/// Names the program, where it does not lie beside this one.
const VARIABLE: &str = "HIRESMED_TRAINER";

/// A trainer that ends by itself so often is not started again.
const STARTS: u32 = 5;

/// How long a trainer may take to finish its step and write a checkpoint.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the trainer on the state folder until `drain` is cancelled, and starts it again when it dies.
///
/// # Errors
/// It is not there, or died too often: the error names its log.
pub async fn keep_running(state: &StateFolder, drain: &CancellationToken) -> Result<()> {
    let program = program()?;
    let log = state.root().join("trainer.log");
    for _ in 0..STARTS {
        let mut child = start(&program, state, &log)?;
        tokio::select! {
            () = drain.cancelled() => return stop(child).await,
            status = child.wait() => {
                let status = status.context("the trainer cannot be waited for")?;
                tracing::warn!(%status, log = %log.display(), "the trainer ended, starting it again");
            }
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    bail!("the trainer ended {STARTS} times by itself; its last words are in {}", log.display())
}

/// The trainer's path: `$HIRESMED_TRAINER`, else beside this program.
///
/// # Errors
/// It is not there.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().context("this program's own path is unknown; set HIRESMED_TRAINER")?;
    let path = own.with_file_name("hiresmed-trainer");
    if path.is_file() {
        return Ok(path);
    }
    Err(anyhow!("training needs the program {}, which is not there; `make trainer` builds it", path.display()))
}

fn start(program: &Path, state: &StateFolder, log: &Path) -> Result<Child> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("the trainer's log {} cannot be written", log.display()))?;
    let mut command = Command::from(command(program));
    command
        .arg("consume")
        .arg("--store")
        .arg(state.store())
        .arg("--queue")
        .arg(state.queue())
        .arg("--cache")
        .arg(state.scratch())
        .arg("--parent")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        // A Ctrl-C is passed on as an orderly stop, and is not to reach it twice.
        .process_group(0);
    command.spawn().with_context(|| format!("the trainer {} cannot be started", program.display()))
}

/// Memory that a step gives back is kept for the next one, which would else find its pages anew: 11 % of a U-Net's step.
const MALLOC: &str = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296";

/// The trainer with libtorch in its reach.
pub fn command(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    // Idle OpenMP threads that spin take the cores from everything else.
    command.env("GOMP_SPINCOUNT", "0").env("GLIBC_TUNABLES", MALLOC);
    if let Some(path) = library_path() {
        command.env("LD_LIBRARY_PATH", path);
    }
    command
}

/// The loader's path with libtorch's folder in front.
fn library_path() -> Option<OsString> {
    let libraries = hiresmed_inference::runtime::folder().ok()?.join("libtorch/lib");
    let mut path = libraries.into_os_string();
    if let Some(inherited) = std::env::var_os("LD_LIBRARY_PATH").filter(|value| !value.is_empty()) {
        path.push(":");
        path.push(inherited);
    }
    Some(path)
}

/// Asks it to finish its step, and ends it when it does not.
async fn stop(mut child: Child) -> Result<()> {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
        // It may have ended just now.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await.context("the trainer cannot be ended")?;
    }
    Ok(())
}
