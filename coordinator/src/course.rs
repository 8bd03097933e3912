//! Where each job of a request stands while it is dispatched. Pure bookkeeping: what the store says goes in, what to
//! publish comes out.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use hiresmed_protocol::{Job, JobId};

/// The jobs of a request that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Course {
    jobs: BTreeMap<JobId, Entry>,
    ready: VecDeque<JobId>,
}

#[derive(Debug)]
struct Entry {
    job: Job,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// Published then.
    InFlight(Instant),
    Waiting(Instant),
}

impl Course {
    /// Adds a job that is to be published.
    pub(crate) fn add(&mut self, job: Job) {
        self.ready.push_back(job.id.clone());
        self.jobs.insert(job.id.clone(), Entry { job, state: State::Ready });
    }

    /// Jobs that could be published now: those whose wait is over count.
    pub(crate) fn ready(&mut self, now: Instant) -> usize {
        for (id, entry) in &mut self.jobs {
            if matches!(entry.state, State::Waiting(until) if until <= now) {
                entry.state = State::Ready;
                self.ready.push_front(id.clone());
            }
        }
        // A job that was settled while it was ready has left its id behind.
        let jobs = &self.jobs;
        self.ready.retain(|id| jobs.get(id).is_some_and(|entry| entry.state == State::Ready));
        self.ready.len()
    }

    /// The first `count` of the ready jobs, in flight from now on; those whose wait is over come first.
    pub(crate) fn take(&mut self, count: usize, now: Instant) -> Vec<Job> {
        let count = count.min(self.ready(now));
        let ids: Vec<JobId> = self.ready.drain(..count).collect();
        let mut taken = Vec::with_capacity(count);
        for id in ids {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.state = State::InFlight(now);
                taken.push(entry.job.clone());
            }
        }
        taken
    }

    /// Forgets a job that is settled, and gives it back the first time.
    pub(crate) fn settle(&mut self, id: &JobId) -> Option<Job> {
        self.jobs.remove(id).map(|entry| entry.job)
    }

    /// Publishes a job in flight again at `until`, as `attempt`.
    pub(crate) fn delay(&mut self, id: &JobId, attempt: u32, until: Instant) {
        if let Some(entry) = self.jobs.get_mut(id) {
            entry.job.attempt = attempt;
            entry.state = State::Waiting(until);
        }
    }

    /// Forgets the jobs that are not wanted any more and that no worker can have.
    pub(crate) fn withdraw(&mut self, wanted: impl Fn(&Job) -> bool) {
        self.jobs.retain(|_, entry| matches!(entry.state, State::InFlight(_)) || wanted(&entry.job));
        let jobs = &self.jobs;
        self.ready.retain(|id| jobs.contains_key(id));
    }

    /// The job's description, while it is not settled.
    pub(crate) fn get(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id).map(|entry| &entry.job)
    }

    /// The jobs that a worker may have.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values().filter(|entry| matches!(entry.state, State::InFlight(_))).map(|entry| &entry.job)
    }

    /// Those of them that were published before `then`.
    pub(crate) fn published_before(&self, then: Instant) -> impl Iterator<Item = &Job> {
        let early = move |entry: &&Entry| matches!(entry.state, State::InFlight(since) if since < then);
        self.jobs.values().filter(early).map(|entry| &entry.job)
    }

    /// When the next wait is over.
    pub(crate) fn due(&self) -> Option<Instant> {
        let waits = self.jobs.values().filter_map(|entry| match entry.state {
            State::Waiting(until) => Some(until),
            State::Ready | State::InFlight(_) => None,
        });
        waits.min()
    }

    /// Whether every job is settled.
    pub(crate) fn is_over(&self) -> bool {
        self.jobs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hiresmed_protocol::{
        Class, Digest, SiteId, VERSION, Work,
        job::{DataSet, Object, TrainRound},
        request::{Modality, Train, TrainedModel},
    };

    use super::*;

    fn job(number: u64) -> Job {
        let request = Train {
            version: VERSION,
            name: "a".to_owned(),
            model: TrainedModel::Unet,
            preset: "tiny".to_owned(),
            data: Vec::new(),
            steps: 1,
            seed: 0,
            autoencoder: None,
            perceptual: None,
            modality: Modality::Ct,
            hold_out: Vec::new(),
            score_on: Vec::new(),
            class: Class::Batch,
        };
        let listing = Object { key: "a".to_owned(), sha256: Digest::of(b"") };
        let data = DataSet { listing, files: 0 };
        let work = TrainRound {
            round: number,
            request,
            parent: None,
            first_step: 0,
            steps: 1,
            autoencoder: None,
            perceptual: None,
            score_on: None,
            data,
        };
        let id = "r".parse().unwrap();
        Job {
            version: VERSION,
            id: JobId::train_round(&id, number),
            request: id,
            site: SiteId::local(),
            attempt: 0,
            class: Class::Batch,
            work: Work::TrainRound(work),
        }
    }

    fn course(jobs: u64) -> Course {
        let mut course = Course::default();
        (0..jobs).for_each(|number| course.add(job(number)));
        course
    }

    fn numbers(jobs: &[Job]) -> Vec<&str> {
        jobs.iter().map(|job| &job.id.as_str()[2..]).collect()
    }

    #[test]
    fn no_more_is_taken_than_is_given() {
        let (mut course, now) = (course(5), Instant::now());
        assert_eq!(numbers(&course.take(2, now)), ["t00000", "t00001"]);
        assert_eq!((course.ready(now), course.in_flight().count()), (3, 2));
        course.settle(&job(2).id);
        assert_eq!(numbers(&course.take(9, now)), ["t00003", "t00004"]);
    }

    #[test]
    fn a_delayed_job_comes_back_first_and_with_its_attempt() {
        let (mut course, now) = (course(3), Instant::now());
        course.take(1, now);
        let until = now + Duration::from_secs(1);
        course.delay(&job(0).id, 1, until);
        assert_eq!(course.due(), Some(until));
        assert_eq!(numbers(&course.take(1, now)), ["t00001"]);
        let again = course.take(1, until);
        assert_eq!((numbers(&again), again[0].attempt), (vec!["t00000"], 1));
    }

    #[test]
    fn what_is_not_wanted_is_withdrawn_unless_a_worker_may_have_it() {
        let (mut course, now) = (course(4), Instant::now());
        course.take(2, now);
        course.delay(&job(1).id, 1, now + Duration::from_secs(1));
        course.withdraw(|found| found.id == job(3).id);
        assert!(course.get(&job(0).id).is_some(), "in flight");
        assert!(course.get(&job(1).id).is_none() && course.get(&job(2).id).is_none());
        assert_eq!((course.ready(now), course.due()), (1, None));
        course.add(job(2));
        assert_eq!(numbers(&course.take(9, now)), ["t00003", "t00002"]);
    }

    #[test]
    fn it_is_over_when_all_are_settled_whatever_their_state() {
        let (mut course, now) = (course(3), Instant::now());
        course.take(1, now);
        course.delay(&job(0).id, 1, now + Duration::from_secs(1));
        for number in [2, 0, 1] {
            assert!(!course.is_over());
            assert!(course.settle(&job(number).id).is_some());
            assert!(course.settle(&job(number).id).is_none());
        }
        assert!(course.is_over());
        assert!(course.take(9, now).is_empty());
    }
}
