//! A stand-in for a worker's jobs: a few bytes for each image, candidates that nobody looked for, and ways to go wrong on request.

use std::time::Duration;

use hiresmed_protocol::{
    Digest, ImageIndex, SiteId, Work,
    job::{FindCandidates, Object},
    keys,
    manifest::{Execution, File, Image},
    noise::{self, Purpose},
    outcome::{Candidate, FoundCandidates, Output, Stage, Success},
    request::{BackgroundMode, Blend, Synthesise},
};
use hiresmed_services::store::{self, Store};
use hiresmed_worker::{
    Environment,
    jobs::{Context, Failure},
};

/// Puts the models and inputs into the store that a small request of `site` needs.
///
/// # Errors
/// The store's.
pub async fn furnish(store: &dyn Store, site: &SiteId) -> store::Result<()> {
    for kind in ["vqgan", "singan", "unet", "density"] {
        let digest = Digest::of(kind.as_bytes());
        store.put(&format!("{}model.json", keys::model(kind, &digest)), "{}".into()).await?;
        store.put(&keys::alias(kind, "default"), digest.to_string().into()).await?;
    }
    for name in ["a.dcm", "b.dcm", "c.dcm"] {
        store.put(&format!("{}sample/{name}", keys::inputs(site)), name.into()).await?;
    }
    Ok(())
}

/// Does a job's work: for each image a file, a mask and the DICOM labels that were asked for, with a few bytes, which depend on the
/// image alone; or candidates that
/// depend on the request alone.
///
/// # Errors
/// As a real job: cancelled, interrupted, or the store's; there is no body in an input called `empty.dcm`.
pub fn imitate(environment: &Environment, context: &Context) -> Result<Success, Failure> {
    imitate_as(environment, context, |_, index, _| format!("image {index}").into_bytes())
}

/// As [`imitate`], each image having `bytes` bytes that depend, as a real one's pixels, on the request's seed, the image's number
/// and its source, and on nothing else.
///
/// # Errors
/// As [`imitate`].
pub fn imitate_pixels(environment: &Environment, context: &Context, bytes: usize) -> Result<Success, Failure> {
    imitate_as(environment, context, |request, index, source| {
        let noise = noise::seed(request.seed, index, Purpose::LesionNoise(0));
        let source = source.map(|source| *source.sha256.as_bytes()).unwrap_or_default();
        noise.into_iter().chain(source).cycle().take(bytes).collect()
    })
}

fn imitate_as(
    environment: &Environment,
    context: &Context,
    pixels: impl Fn(&Synthesise, ImageIndex, Option<&Object>) -> Vec<u8>,
) -> Result<Success, Failure> {
    let work = match &context.job().work {
        Work::Synthesise(work) => work,
        Work::Candidates(work) => return candidates(context, work),
        Work::TrainRound(_) => return Err(Failure::Permanent { stage: None, reason: "it cannot train".to_owned() }),
    };
    let mut success = Success::default();
    for (done, (index, source)) in work.tasks().enumerate() {
        context.check()?;
        let file = format!("images/{}.dcm", index.stem());
        let output = context.output(environment, &*file, pixels(&work.request, index, source))?;
        let mask = format!("masks/{}.png", index.stem());
        let mask = context.output(environment, &*mask, format!("mask {index}").into_bytes())?;
        let mut image = image(index, &output, &mask);
        success.outputs.extend([output, mask]);
        let wanted = work.request.output;
        for (wanted, name, part) in [(wanted.seg, "seg", &mut image.seg), (wanted.sr, "sr", &mut image.sr)] {
            if wanted {
                let file = format!("labels-{name}/{}.dcm", index.stem());
                let output = context.output(environment, &*file, format!("{name} {index}").into_bytes())?;
                *part = Some(File { file: output.file.clone(), sha256: output.sha256 });
                success.outputs.push(output);
            }
        }
        success.images.push(image);
        context.progress(Stage::Outputs, done as u64 + 1, work.images.count);
    }
    Ok(success)
}

/// As many positions as were asked for, in a row.
fn candidates(context: &Context, work: &FindCandidates) -> Result<Success, Failure> {
    context.check()?;
    if work.input.key.ends_with("/empty.dcm") {
        return Err(Failure::Permanent {
            stage: Some(Stage::Placement),
            reason: "no body was found in the image".to_owned(),
        });
    }
    let request = &work.request;
    let found = FoundCandidates {
        width: request.size.width,
        height: request.size.height,
        spacing_mm: [1.0, 1.0],
        diameter_mm: request.diameter_mm,
        allowed_px: request.count.into(),
        candidates: (0..request.count)
            .map(|x| Candidate { x, y: 0, weight: 1.0 / f64::from(request.count.max(1)) })
            .collect(),
    };
    Ok(Success { candidates: Some(found), ..Success::default() })
}

/// As [`imitate`], each image taking `time`; a request whose name says so goes wrong: `poison` kills its worker in the job
/// with image 0, `hungry` takes memory there until the system kills it.
///
/// # Errors
/// As [`imitate`].
pub fn imitate_slowly(environment: &Environment, context: &Context, time: Duration) -> Result<Success, Failure> {
    if let Work::Synthesise(work) = &context.job().work {
        let first = work.images.first.0 == 0;
        match work.request.name.as_deref() {
            Some("poison") if first => std::process::abort(),
            Some("hungry") if first => starve(),
            _ => {}
        }
        keep_package(environment)?;
        for _ in 0..work.images.count {
            context.check()?;
            std::thread::sleep(time);
        }
    }
    imitate(environment, context)
}

/// Writes to the worker's disk, as the real work keeps packages there.
fn keep_package(environment: &Environment) -> Result<(), Failure> {
    let scratch = environment.scratch();
    std::fs::create_dir_all(scratch)
        .and_then(|()| std::fs::write(scratch.join("package"), [0; 16 << 10]))
        .map_err(|error| Failure::Transient { stage: None, reason: format!("the worker's disk cache: {error}") })
}

/// Takes memory, and touches it, until the process is killed.
fn starve() -> ! {
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        held.push(vec![held.len() as u8 | 1; 16 << 20]);
    }
}

fn image(index: ImageIndex, output: &Output, mask: &Output) -> Image {
    let execution = Execution { provider: "none".to_owned(), runtime_version: "0".to_owned(), batch_size: 1 };
    Image {
        file: output.file.clone(),
        sha256: output.sha256,
        index,
        seed: 0,
        dimensions: None,
        models: Default::default(),
        lesions: Vec::new(),
        mask: Some(File { file: mask.file.clone(), sha256: mask.sha256 }),
        background: None,
        yolo: None,
        seg: None,
        sr: None,
        candidates: None,
        danger_zones: None,
        input_sha256: None,
        mode: BackgroundMode::Reconstruct,
        blend: Blend::Feather,
        spacing_mm: [1.0, 1.0],
        execution,
    }
}
