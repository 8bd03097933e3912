//! What a request's result consists of: its manifest and the objects that are its files.

use std::collections::BTreeMap;

use hiresmed_protocol::{
    Digest, ImageIndex, Manifest, Plan, Request, RequestId, VERSION, Verdict, Work,
    manifest::Image,
    outcome::{ImageFailure, Stage, StageTiming, Success},
    request::Synthesise,
};

use crate::{Error, Ledger, recipe::Jobs};

/// The result of a synthesis request, as far as it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// What describes it.
    pub manifest: Manifest,
    /// Where it is not complete: how many images are not settled. 0 for an unbounded request.
    pub missing: u64,
    /// The files by the path under which they are delivered, with the digest that is their key.
    pub files: BTreeMap<String, Digest>,
}

/// The result of request `id`; `None` for a request whose result are no images.
///
/// # Errors
/// [`Error::UnknownRequest`], [`Error::Document`], the store's.
pub async fn assemble(ledger: &Ledger, id: &RequestId) -> Result<Option<Delivery>, Error> {
    let Request::Synthesise(request) = ledger.request(id).await? else { return Ok(None) };
    let Some(mut plan) = ledger.plan(id).await? else { return Err(Error::UnknownRequest(id.clone())) };
    let outcomes = ledger.outcomes(id).await?;
    if let Some(jobs) = Jobs::unbounded(&plan) {
        // What is settled; nothing is missing from a request without a last image.
        let settled = outcomes.keys().filter_map(|job| jobs.job(job.synthesis_number()?));
        plan.jobs = settled.collect();
    }
    let verdicts = plan.jobs.iter().map(|job| outcomes.get(&job.id).map(|outcome| &outcome.verdict));
    Ok(Some(collect(&plan, &request, &verdicts.collect::<Vec<_>>())))
}

/// `verdicts[k]` is how the plan's job `k` was settled, if it was.
fn collect(plan: &Plan, request: &Synthesise, verdicts: &[Option<&Verdict>]) -> Delivery {
    let mut parts = Parts::default();
    for (job, verdict) in plan.jobs.iter().zip(verdicts) {
        let Work::Synthesise(work) = &job.work else { continue };
        match verdict {
            Some(Verdict::Succeeded(success)) => parts.add(success),
            Some(Verdict::Failed(failure) | Verdict::Transient(failure)) => {
                let stage = failure.stage.unwrap_or(Stage::Inputs);
                let reason = &failure.reason;
                parts.failures.extend(work.images.iter().map(|index| ImageFailure {
                    index,
                    stage,
                    reason: reason.clone(),
                }));
            }
            Some(Verdict::Interrupted | Verdict::Cancelled) | None => {}
        }
    }
    parts.failures.sort_by_key(|failure| failure.index);
    let missing = plan.images().saturating_sub((parts.images.len() + parts.failures.len()) as u64);
    let manifest = Manifest {
        version: VERSION,
        request: plan.request.clone(),
        site: plan.site.clone(),
        name: request.name.clone(),
        generator: concat!("hiresmed ", env!("CARGO_PKG_VERSION")).to_owned(),
        seed: request.seed,
        modality: request.modality,
        size: request.size,
        synthetic: true,
        images: parts.images.into_values().collect(),
        failures: parts.failures,
        stages: parts.stages.into_values().collect(),
    };
    Delivery { manifest, missing, files: parts.files }
}

#[derive(Default)]
struct Parts {
    images: BTreeMap<ImageIndex, Image>,
    failures: Vec<ImageFailure>,
    stages: BTreeMap<Stage, StageTiming>,
    files: BTreeMap<String, Digest>,
}

impl Parts {
    fn add(&mut self, success: &Success) {
        self.images.extend(success.images.iter().map(|image| (image.index, image.clone())));
        self.failures.extend(success.failures.iter().cloned());
        self.files.extend(success.outputs.iter().map(|output| (output.file.clone(), output.sha256)));
        for timing in &success.stages {
            let sum = StageTiming { stage: timing.stage, duration_ms: 0.0, runtime_ms: 0.0, count: 0 };
            let sum = self.stages.entry(timing.stage).or_insert(sum);
            sum.duration_ms += timing.duration_ms;
            sum.runtime_ms += timing.runtime_ms;
            sum.count += timing.count;
        }
    }
}

#[cfg(test)]
mod tests {
    use hiresmed_protocol::{
        Class, Job, JobId, SiteId,
        job::{ImageRange, Models, SynthesiseImages},
        outcome::{Failure, Output},
        parse,
    };

    use super::*;

    fn plan(request: &Synthesise, jobs: u64) -> Plan {
        let (id, digest): (RequestId, _) = ("r".parse().unwrap(), Digest::of(b""));
        let models =
            Models { vqgan: digest, singan: vec![digest], unet: digest, density: None, yolo: None, prior: None };
        let job = |number| Job {
            version: VERSION,
            id: JobId::synthesise(&id, number),
            request: id.clone(),
            site: SiteId::local(),
            attempt: 0,
            class: Class::Interactive,
            work: Work::Synthesise(SynthesiseImages {
                images: ImageRange { first: ImageIndex(number * 2), count: 2 },
                request: request.clone(),
                models: models.clone(),
                inputs: Vec::new(),
            }),
        };
        let jobs = (0..jobs).map(job).collect();
        Plan {
            version: VERSION,
            request: id.clone(),
            site: SiteId::local(),
            models: Some(models.clone()),
            jobs,
            recipe: None,
        }
    }

    fn success(files: &[&str], failed: &[u64], duration_ms: f64) -> Verdict {
        let output =
            |file: &&str| Output { file: (*file).to_owned(), sha256: Digest::of(file.as_bytes()), size_bytes: 1 };
        let failure =
            |index: &u64| ImageFailure { index: ImageIndex(*index), stage: Stage::Lesions, reason: "no".to_owned() };
        Verdict::Succeeded(Success {
            outputs: files.iter().map(output).collect(),
            images: Vec::new(),
            failures: failed.iter().map(failure).collect(),
            round: None,
            candidates: None,
            stages: vec![StageTiming { stage: Stage::Lesions, duration_ms, runtime_ms: duration_ms / 2.0, count: 2 }],
        })
    }

    #[test]
    fn parts_of_all_jobs_are_joined_and_the_rest_is_missing() {
        let Request::Synthesise(request) = parse::toml("version = 1\nkind = \"synthesise\"\ncount = 8").unwrap() else {
            panic!()
        };
        let plan = plan(&request, 4);
        let first = success(&["images/image-00000.dcm"], &[1], 1.5);
        let failed = Verdict::Failed(Failure { stage: None, reason: "bad package".to_owned() });
        let last = success(&["images/image-00006.dcm"], &[], 2.0);
        let delivery = collect(&plan, &request, &[Some(&first), Some(&failed), None, Some(&last)]);
        let failures: Vec<_> = delivery.manifest.failures.iter().map(|failure| failure.index.0).collect();
        assert_eq!(failures, [1, 2, 3]);
        assert_eq!(delivery.manifest.failures[1].reason, "bad package");
        assert_eq!(delivery.files.len(), 2);
        let sum = StageTiming { stage: Stage::Lesions, duration_ms: 3.5, runtime_ms: 1.75, count: 4 };
        assert_eq!(delivery.manifest.stages, [sum]);
        assert_eq!(delivery.missing, 5);
    }
}
