//! `hiresmed submit`: records a request, and with `--wait` works for it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use hiresmed_coordinator::Ending;
use hiresmed_protocol::{
    Request, parse,
    request::{ImageCount, Synthesise},
};

use super::{StateArgument, conclude};
use crate::{export, failure, fleet::Fleet, intake};

/// Record a request; the same request again is the same request
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The request, in TOML or (with the ending .json) in JSON
    #[arg(value_name = "REQUEST")]
    request: PathBuf,
    /// Folder with the source images, in place of the request's `inputs`
    #[arg(long, value_name = "DIR")]
    inputs: Option<PathBuf>,
    /// Work until it is complete
    #[arg(long)]
    wait: bool,
    /// Folder for the result
    #[arg(long, value_name = "DIR", requires = "wait")]
    out: Option<PathBuf>,
    #[command(flatten)]
    state: StateArgument,
}

/// Runs the command.
///
/// # Errors
/// The request is refused, the state or output folder cannot be used, or the request ended without a result.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut request = read(&arguments.request)?;
    check_count(&request).with_context(|| format!("{} is refused", arguments.request.display()))?;
    if let Request::Candidates(_) = request {
        let text =
            "kind = \"candidates\" is for fleets; on this machine, `hiresmed candidates --background FILE` finds them";
        return Err(failure::refused(anyhow!(text)));
    }
    if let Some(out) = &arguments.out {
        export::check(out)?;
    }
    let fleet = arguments.state.open()?;
    if let Request::Synthesise(synthesise) = &mut request {
        take_inputs(&fleet, synthesise, arguments)?;
    }
    let plan = fleet.submit(&request).with_context(|| format!("{} is refused", arguments.request.display()))?;
    let id = plan.request;
    println!("{id}");
    if !arguments.wait {
        eprintln!("recorded; `hiresmed watch {id} --out DIR` works for it");
        return Ok(ExitCode::SUCCESS);
    }
    finish(&fleet, &id, arguments.out.as_deref())
}

/// Works for a request and exports its result.
///
/// # Errors
/// It ended without a result, or this cannot be written.
pub fn finish(fleet: &Fleet, id: &hiresmed_protocol::RequestId, out: Option<&Path>) -> Result<ExitCode> {
    let ending = fleet.finish(id)?;
    if let (Some(out), Ending::Completed { images, .. }) = (out, &ending)
        && *images > 0
    {
        export::export(fleet, id, out, &again(id))?;
        println!("{}", out.join(export::MANIFEST).display());
    }
    let code = conclude(id, &ending)?;
    if let (None, Ending::Completed { .. }) = (out, &ending) {
        eprintln!("complete; `hiresmed export {id} --out DIR` writes the result");
    }
    Ok(code)
}

/// How an export that failed is tried again.
pub fn again(id: &hiresmed_protocol::RequestId) -> String {
    format!("`hiresmed export {id} --out DIR` tries again")
}

fn read(path: &Path) -> Result<Request> {
    let blame = || format!("the request {} is refused", path.display());
    let text = std::fs::read_to_string(path).map_err(failure::refused).with_context(blame)?;
    let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
    let request = if is_json { parse::json(&text) } else { parse::toml(&text) };
    request.map_err(failure::refused).with_context(blame)
}

/// Refuses an unbounded request: its images are made as they are read from a stream, and this command has none.
fn check_count(request: &Request) -> Result<()> {
    match request {
        Request::Synthesise(Synthesise { count: ImageCount::Unbounded, .. }) => Err(failure::refused(anyhow!(
            "`count` = \"unbounded\": such a request is read from a coordinator's stream, and this command has none; give a \
             number, or send the request to a coordinator (`POST /v1/requests`) and read `GET /v1/requests/{{id}}/stream`"
        ))),
        _ => Ok(()),
    }
}

/// Inputs that are a folder of this machine are brought into the store; the request then names them by their content.
fn take_inputs(fleet: &Fleet, request: &mut Synthesise, arguments: &Arguments) -> Result<()> {
    let folder = match &arguments.inputs {
        Some(folder) => folder.clone(),
        None if request.inputs == "sample" => return Ok(()),
        // Relative to the request's own folder, so that both can be moved together.
        None => arguments.request.parent().unwrap_or(Path::new("")).join(&request.inputs),
    };
    if !folder.is_dir() {
        if arguments.inputs.is_some() {
            return Err(failure::refused(anyhow!("--inputs: {} is not a folder", folder.display())));
        }
        // An alias or prefix of the store: the planner looks for it there.
        return Ok(());
    }
    request.inputs = fleet
        .wait(intake::images(fleet.store(), fleet.site(), &fleet.names(), &folder))
        .context("the inputs cannot be taken")?;
    Ok(())
}
