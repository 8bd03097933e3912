//! From a request to its plan: names to digests, images to jobs.

use hiresmed_protocol::{
    Plan, Request, RequestId, SiteId, VERSION, Work,
    job::{Models, Object},
    keys,
    plan::Recipe,
    request::{BackgroundMode, Synthesise},
    validate::{Fault, Faults},
};

use crate::{Error, Ledger, candidates, clock, exemplars, models, recipe::Jobs, rounds, sources, status};

/// Images of a job where the request does not say, or twice as many at most so that images of one background stay together. A
/// crash costs at most so many; loading models is once per worker.
const CHUNK: u64 = 4;

/// Images that are made from one background at most where the request does not say.
const DRAWS: u64 = 8;

/// A plan has at most about so many jobs where the request does not say: larger requests get larger jobs.
const JOBS: u64 = 5_000;

/// A plan never has more jobs: it is one document, and held in memory.
const MOST_JOBS: u64 = 20_000;

/// Makes plans for a site.
#[derive(Clone)]
pub struct Planner {
    ledger: Ledger,
    site: SiteId,
}

impl Planner {
    /// A planner for the requests of `site`.
    pub fn new(ledger: Ledger, site: SiteId) -> Self {
        Self { ledger, site }
    }

    /// Accepts a request: validates, plans and records it. The same request twice is one request with one plan.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::UnknownModel`], [`Error::AmbiguousModel`], [`Error::NoFiles`]: nothing is recorded
    /// then; [`Error::Waiting`]: it is recorded, and planned when the lesion models of its exemplars are trained; or the store's.
    pub async fn submit(&self, request: &Request) -> Result<Plan, Error> {
        self.submit_as(RequestId::derive(request, &self.site, None), request).await
    }

    /// As [`Planner::submit`], under an id that was derived with an idempotency key.
    ///
    /// # Errors
    /// As [`Planner::submit`].
    pub async fn submit_as(&self, id: RequestId, request: &Request) -> Result<Plan, Error> {
        request.validate()?;
        check_jobs(request)?;
        if let Some(plan) = self.ledger.plan(&id).await? {
            return Ok(plan);
        }
        self.plan_and_accept(id, request).await
    }

    /// The plan of a recorded request, made now where its coordinator died before it was recorded.
    ///
    /// # Errors
    /// As [`Planner::submit`], and [`Error::UnknownRequest`].
    pub async fn recorded(&self, id: &RequestId) -> Result<Plan, Error> {
        if let Some(plan) = self.ledger.plan(id).await? {
            return Ok(plan);
        }
        let request = self.ledger.request(id).await?;
        self.plan_and_accept(id.clone(), &request).await
    }

    async fn plan_and_accept(&self, id: RequestId, request: &Request) -> Result<Plan, Error> {
        if let Request::Synthesise(synthesise) = request {
            let trainings = exemplars::untrained(&self.ledger, &self.site, synthesise).await?;
            if !trainings.is_empty() {
                let waits_for = self.train_first(synthesise, trainings).await?;
                self.ledger.create(&keys::request(&id), request).await?;
                return Err(Error::Waiting { id, trainings: waits_for });
            }
        }
        let plan = self.plan(id, request).await?;
        self.ledger.accept(request, plan).await
    }

    /// Records the trainings that a request waits for, to be dispatched, and gives their ids. What is there already stays as it is.
    async fn train_first(
        &self,
        synthesise: &Synthesise,
        trainings: Vec<(RequestId, Request)>,
    ) -> Result<Vec<RequestId>, Error> {
        // Whatever else is wrong with it is said now, and not when the trainings are done.
        self.sources(synthesise).await?;
        models::resolve_others(&self.ledger, synthesise).await?;
        let mut waits_for = Vec::new();
        for (training, request) in trainings {
            if self.ledger.plan(&training).await?.is_none() {
                let plan = self.plan(training.clone(), &request).await.map_err(|error| match error {
                    Error::NoFiles { source_name, what, prefix, .. } => {
                        Error::NoFiles { path: "models.singan".to_owned(), source_name, what, prefix }
                    }
                    error => error,
                })?;
                self.ledger.accept(&request, plan).await?;
            }
            self.ledger.own(&self.site, &training, &clock::now()).await?;
            if !status::of(&self.ledger, &training).await?.is_over() {
                self.ledger.open(&self.site, &training).await?;
            }
            waits_for.push(training);
        }
        Ok(waits_for)
    }

    /// The source images of a request's backgrounds.
    async fn sources(&self, request: &Synthesise) -> Result<Vec<Object>, Error> {
        match request.background.mode {
            BackgroundMode::Sample => Ok(Vec::new()),
            BackgroundMode::Reconstruct => sources::images(&self.ledger, &self.site, "inputs", &request.inputs).await,
        }
    }

    async fn plan(&self, id: RequestId, request: &Request) -> Result<Plan, Error> {
        match request {
            Request::Synthesise(synthesise) => {
                let models = models::resolve_all(&self.ledger, synthesise).await?;
                let sources = self.sources(synthesise).await?;
                Ok(synthesis(id, self.site.clone(), synthesise, models, sources))
            }
            Request::Train(train) => {
                let data = sources::data_set(&self.ledger, &self.site, "data", &train.data).await?;
                let mut first = rounds::first(&id, &self.site, train, data);
                if let Work::TrainRound(round) = &mut first.work {
                    round.autoencoder = models::resolve_autoencoder(&self.ledger, train).await?;
                    if let Some(source) = &train.perceptual {
                        let source = std::slice::from_ref(source);
                        round.perceptual =
                            Some(sources::data_set(&self.ledger, &self.site, "perceptual", source).await?);
                    }
                    if !train.score_on.is_empty() {
                        round.score_on =
                            Some(sources::data_set(&self.ledger, &self.site, "score_on", &train.score_on).await?);
                    }
                }
                let jobs = vec![first];
                Ok(Plan { version: VERSION, request: id, site: self.site.clone(), models: None, jobs, recipe: None })
            }
            Request::Candidates(wanted) => {
                let jobs = vec![candidates::job(&self.ledger, &id, &self.site, wanted).await?];
                Ok(Plan { version: VERSION, request: id, site: self.site.clone(), models: None, jobs, recipe: None })
            }
        }
    }
}

/// Refuses chunks so small that the plan would not fit in memory.
fn check_jobs(request: &Request) -> Result<(), Error> {
    let Request::Synthesise(Synthesise { count, chunk: Some(chunk), .. }) = request else { return Ok(()) };
    // The jobs of an unbounded request are not in its plan.
    let Some(count) = count.bound().filter(|count| count.div_ceil((*chunk).max(1)) > MOST_JOBS) else { return Ok(()) };
    let allowed = format!("must be at least {}: a request has at most {MOST_JOBS} jobs", count.div_ceil(MOST_JOBS));
    let fault = Fault { path: "chunk".to_owned(), value: chunk.to_string(), allowed };
    Err(Error::Refused(Faults::from(vec![fault])))
}

/// The plan of a synthesis request; a pure function of its arguments.
fn synthesis(id: RequestId, site: SiteId, request: &Synthesise, models: Models, sources: Vec<Object>) -> Plan {
    let draws = draws(request, sources.len() as u64);
    let chunk = || CHUNK.max(request.count.bound().unwrap_or(0).div_ceil(JOBS)).next_multiple_of(draws);
    let chunk = request.chunk.unwrap_or_else(chunk).max(1);
    let recipe = Recipe { request: request.clone(), sources, chunk, draws };
    let Some(images) = request.count.bound() else {
        let (models, jobs) = (Some(models), Vec::new());
        return Plan { version: VERSION, request: id, site, models, jobs, recipe: Some(recipe) };
    };
    let jobs = Jobs { id: &id, site: &site, models: &models, recipe: &recipe, images };
    let jobs = (0..images.div_ceil(chunk)).filter_map(|number| jobs.job(number)).collect();
    Plan { version: VERSION, request: id, site, models: Some(models), jobs, recipe: None }
}

/// How many images in a row share a background.
fn draws(request: &Synthesise, sources: u64) -> u64 {
    if request.background.mode == BackgroundMode::Sample {
        return 1;
    }
    let fewest = request.count.bound().map_or(DRAWS, |images| images.div_ceil(sources.max(1)).clamp(1, DRAWS));
    request.background.draws.map_or(fewest, u64::from).max(1)
}

#[cfg(test)]
mod tests {
    use hiresmed_protocol::{Digest, Job, Work, parse};

    use super::*;

    fn request(text: &str) -> Synthesise {
        match parse::toml(&format!("version = 1\nkind = \"synthesise\"\n{text}")).unwrap() {
            Request::Synthesise(request) => request,
            _ => panic!(),
        }
    }

    fn plan(text: &str, sources: usize) -> Plan {
        let digest = Digest::of(b"model");
        let models =
            Models { vqgan: digest, singan: vec![digest], unet: digest, density: None, yolo: None, prior: None };
        let sources = (0..sources)
            .map(|n| Object { key: format!("sites/local/inputs/a/{n}"), sha256: Digest::of(&n.to_le_bytes()) })
            .collect();
        synthesis("r".parse().unwrap(), SiteId::local(), &request(text), models, sources)
    }

    fn inputs(plan: &Plan) -> Vec<(u64, String)> {
        inputs_of(&plan.jobs)
    }

    fn inputs_of(jobs: &[Job]) -> Vec<(u64, String)> {
        let jobs = jobs.iter().filter_map(|job| match &job.work {
            Work::Synthesise(work) => Some(work.tasks().map(|(index, input)| (index.0, input.unwrap().key.clone()))),
            Work::TrainRound(_) | Work::Candidates(_) => None,
        });
        jobs.flatten().collect()
    }

    #[test]
    fn every_image_is_in_exactly_one_job() {
        for (text, jobs) in [("count = 10", 3), ("count = 10\nchunk = 3", 4), ("count = 1", 1), ("count = 8", 2)] {
            let plan = plan(text, 3);
            assert_eq!(plan.jobs.len(), jobs, "{text}");
            let indices: Vec<_> = inputs(&plan).into_iter().map(|(index, _)| index).collect();
            assert_eq!(indices, (0..plan.images()).collect::<Vec<_>>(), "{text}");
        }
    }

    #[test]
    fn an_images_input_does_not_depend_on_the_chunk() {
        assert_eq!(inputs(&plan("count = 20\nchunk = 3", 7)), inputs(&plan("count = 20\nchunk = 20", 7)));
        assert_ne!(inputs(&plan("count = 20\nseed = 1", 7)), inputs(&plan("count = 20\nseed = 2", 7)));
    }

    #[test]
    fn images_share_backgrounds_as_often_as_there_are_too_few() {
        let runs = |text: &str, sources: usize| -> Vec<usize> {
            let keys: Vec<_> = inputs(&plan(text, sources)).into_iter().map(|(_, key)| key).collect();
            keys.chunk_by(|a, b| a == b).map(<[String]>::len).collect()
        };
        assert_eq!(runs("count = 7", 7), [1; 7]);
        assert_eq!(runs("count = 8", 4), [2; 4]);
        assert_eq!(runs("count = 40", 2).iter().sum::<usize>(), 40);
        assert!(runs("count = 40", 2).iter().all(|run| run % 8 == 0));
        assert_eq!(runs("count = 6\nbackground = { draws = 3 }", 7), [3, 3]);
        // Those of one background are in one job.
        let jobs = plan("count = 30", 5).jobs;
        assert_eq!(jobs.len(), 5);
    }

    #[test]
    fn every_source_is_used_once_before_any_is_used_again() {
        let plan = plan("count = 14\nbackground = { draws = 1 }", 7);
        let keys: Vec<_> = inputs(&plan).into_iter().map(|(_, key)| key).collect();
        for pass in keys.chunks(7) {
            assert_eq!(pass.iter().collect::<std::collections::BTreeSet<_>>().len(), 7);
        }
        assert_ne!(keys[..7], keys[7..]);
    }

    #[test]
    fn a_sampled_background_has_no_input() {
        let plan = plan("count = 9\nbackground.mode = \"sample\"", 0);
        // Nothing is shared, so that jobs are no larger for it.
        assert_eq!(plan.jobs.len(), 3);
        let Work::Synthesise(work) = &plan.jobs[0].work else { panic!() };
        assert!(work.inputs.is_empty());
        assert!(work.tasks().all(|(_, input)| input.is_none()));
    }

    #[test]
    fn an_unbounded_request_has_the_images_of_a_bounded_one_and_a_plan_without_jobs() {
        for more in ["", "\nchunk = 3", "\nseed = 5\nbackground = { draws = 3 }"] {
            let unbounded = plan(&format!("count = \"unbounded\"{more}"), 7);
            assert!(unbounded.jobs.is_empty() && unbounded.recipe.is_some());
            let jobs: Vec<_> =
                (0..20).map(|number| Jobs::unbounded(&unbounded).unwrap().job(number).unwrap()).collect();
            let bounded = inputs(&plan(&format!("count = 1000{more}"), 7));
            let made = inputs_of(&jobs);
            assert_eq!(made, bounded[..made.len()], "{more}");
            assert_eq!(jobs[19].id.as_str(), "r-s00019");
        }
        assert!(Jobs::unbounded(&plan("count = 3", 7)).is_none());
    }

    #[test]
    fn a_million_images_make_a_bounded_plan() {
        assert_eq!(plan("count = 1000000", 7).jobs.len(), 5_000);
    }
}
