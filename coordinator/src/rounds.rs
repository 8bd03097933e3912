//! Training as a chain of short rounds: each begins at the checkpoint that the one before it left.

use std::time::Duration;

use hiresmed_protocol::{
    Job, JobId, RequestId, SiteId, VERSION, Work,
    job::{DataSet, TrainRound},
    outcome::RoundResult,
    request::Train,
};

/// How long a round should take. No crash costs more.
pub const TARGET: Duration = Duration::from_secs(300);

/// Steps of the first round: enough to measure a step's time.
const FIRST_STEPS: u64 = 20;

/// A round that would leave fewer than one in so many of its steps for another one makes them itself.
const REST: u64 = 5;

/// The first round of a training request, without the models that it may need.
pub fn first(id: &RequestId, site: &SiteId, train: &Train, data: DataSet) -> Job {
    Job {
        version: VERSION,
        id: JobId::train_round(id, 0),
        request: id.clone(),
        site: site.clone(),
        attempt: 0,
        class: train.class,
        work: Work::TrainRound(TrainRound {
            round: 0,
            request: train.clone(),
            parent: None,
            first_step: 0,
            steps: length(train.steps, FIRST_STEPS),
            autoencoder: None,
            perceptual: None,
            score_on: None,
            data,
        }),
    }
}

/// The round that follows `round`, which ended with `result`; none when that made the finished package. A pure function,
/// so that every coordinator that starts finds the same chain.
pub fn next(job: &Job, round: &TrainRound, result: &RoundResult) -> Option<Job> {
    if result.package.is_some() {
        return None;
    }
    // A model may need a few steps more than were asked for, to end a scale.
    let left = match round.request.steps.saturating_sub(result.step) {
        0 => FIRST_STEPS,
        left => left,
    };
    // A round that was stopped early still says how fast steps are.
    let wished = TARGET.as_secs_f64() * 1000.0 / result.step_ms.max(0.01);
    let number = round.round + 1;
    Some(Job {
        id: JobId::train_round(&job.request, number),
        attempt: 0,
        work: Work::TrainRound(TrainRound {
            round: number,
            request: round.request.clone(),
            parent: Some(result.checkpoint.clone()),
            first_step: result.step,
            steps: length(left, wished as u64),
            autoencoder: round.autoencoder,
            perceptual: round.perceptual.clone(),
            score_on: round.score_on.clone(),
            data: round.data.clone(),
        }),
        ..job.clone()
    })
}

fn length(left: u64, wished: u64) -> u64 {
    let wished = wished.max(1);
    if left <= wished.saturating_add(wished / REST) { left } else { wished }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hiresmed_protocol::{
        Class, Digest,
        job::Object,
        request::{Modality, TrainedModel},
    };

    use super::*;

    fn train(steps: u64) -> Job {
        let train = Train {
            version: VERSION,
            name: "mine".to_owned(),
            model: TrainedModel::Vqgan,
            preset: "tiny".to_owned(),
            data: vec!["a".to_owned()],
            steps,
            seed: 0,
            autoencoder: None,
            perceptual: None,
            modality: Modality::Ct,
            hold_out: Vec::new(),
            score_on: Vec::new(),
            class: Class::Batch,
        };
        let listing = Object { key: "sites/local/objects/a".to_owned(), sha256: Digest::of(b"") };
        let mut job =
            first(&"r".parse().unwrap(), &SiteId::local(), &train, DataSet { listing: listing.clone(), files: 1 });
        if let Work::TrainRound(round) = &mut job.work {
            round.autoencoder = Some(Digest::of(b"v"));
            round.perceptual = Some(DataSet { listing: listing.clone(), files: 2 });
            round.score_on = Some(DataSet { listing, files: 3 });
        }
        job
    }

    fn round(job: &Job) -> &TrainRound {
        match &job.work {
            Work::TrainRound(round) => round,
            Work::Synthesise(_) | Work::Candidates(_) => panic!(),
        }
    }

    fn result(step: u64, step_ms: f64) -> RoundResult {
        let checkpoint = Object { key: format!("sites/local/objects/{step}"), sha256: Digest::of(b"") };
        RoundResult { checkpoint, step, step_ms, losses: BTreeMap::new(), package: None }
    }

    fn after(job: &Job, step: u64, step_ms: f64) -> Option<Job> {
        next(job, round(job), &result(step, step_ms))
    }

    #[test]
    fn rounds_aim_at_five_minutes() {
        let job = train(10_000);
        assert_eq!(round(&job).steps, 20);
        let job = after(&job, 20, 500.0).unwrap();
        assert_eq!((round(&job).round, round(&job).first_step, round(&job).steps), (1, 20, 600));
        assert_eq!(job.id.as_str(), "r-t00001");
        assert_eq!(round(&job).autoencoder, Some(Digest::of(b"v")));
        assert_eq!(round(&job).perceptual.as_ref().map(|files| files.files), Some(2));
        assert_eq!(round(&job).score_on.as_ref().map(|files| files.files), Some(3));
        assert_eq!(round(&job).parent.as_ref().unwrap().key, "sites/local/objects/20");
    }

    #[test]
    fn a_small_rest_is_not_a_round_of_its_own() {
        assert_eq!(round(&train(24)).steps, 24);
        assert_eq!(round(&train(25)).steps, 20);
        let job = after(&train(730), 20, 500.0).unwrap();
        assert_eq!(round(&job).steps, 710);
    }

    #[test]
    fn the_chain_ends_with_the_package_and_not_before() {
        let job = train(20);
        assert_eq!(after(&job, 20, 500.0).map(|job| round(&job).steps), Some(FIRST_STEPS));
        let package = Object { key: "models/vqgan/a/model.json".to_owned(), sha256: Digest::of(b"") };
        let last = RoundResult { package: Some(package), ..result(20, 500.0) };
        assert!(next(&job, round(&job), &last).is_none());
    }

    #[test]
    fn a_round_that_stopped_early_is_continued() {
        let job = after(&train(10_000), 7, 1e9).unwrap();
        assert_eq!((round(&job).first_step, round(&job).steps), (7, 1));
        assert!(after(&job, 8, 0.0).is_some_and(|job| round(&job).steps == 9_992));
    }
}
