//! What a worker makes durable about a job: that it began, and how it ended.

use std::{sync::Arc, time::Instant};

use hiresmed_protocol::{Attempt, Job, Outcome, VERSION, Verdict, keys};
use hiresmed_services::store::{self, Store};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The record could not be put into words.
    #[error("a record could not be written: {0}")]
    Document(String),
}

impl Error {
    /// Whether the store may do it later: a lost connection, a server that is restarted, a permission that is put right.
    pub(crate) fn may_pass(&self) -> bool {
        use store::Error::{Backend, Denied, Full};
        matches!(self, Self::Store(Backend { .. } | Denied { .. } | Full { .. }))
    }
}

/// Whether the job has an outcome that counts.
pub(crate) async fn is_settled(store: &Arc<dyn Store>, job: &Job) -> Result<bool, Error> {
    Ok(store.head(&keys::done(&job.request, &job.id)).await?.is_some())
}

/// How often the job's present attempt was started and never ended.
pub(crate) async fn crashes(store: &Arc<dyn Store>, job: &Job) -> Result<u32, Error> {
    let mut crashes = 0;
    for key in store.list(&keys::attempts(&job.request, &job.id)).await? {
        let attempt = serde_json::from_slice::<Attempt>(&store.get(&key).await?);
        crashes += u32::from(attempt.is_ok_and(|attempt| attempt.attempt == job.attempt && attempt.ended.is_none()));
    }
    Ok(crashes)
}

/// The record of a start, open until [`Record::end`].
pub(crate) struct Record {
    store: Arc<dyn Store>,
    key: String,
    attempt: Attempt,
    began: Instant,
}

impl Record {
    /// The record that `worker` begins `job`, not yet written.
    pub(crate) fn of(store: Arc<dyn Store>, job: &Job, worker: &str) -> Result<Self, Error> {
        let now = OffsetDateTime::now_utc();
        let started_at = now.format(&Rfc3339).map_err(|error| Error::Document(error.to_string()))?;
        let delivery = format!("{:x}-{:x}", now.unix_timestamp_nanos(), std::process::id());
        let key = keys::attempt(&job.request, &job.id, job.attempt, &delivery);
        let attempt =
            Attempt { version: VERSION, attempt: job.attempt, worker: worker.to_owned(), started_at, ended: None };
        Ok(Self { store, key, attempt, began: Instant::now() })
    }

    /// Writes it, before anything is done for the job. Where an answer of the store was lost it is written again, as the same record:
    /// another one would look like a worker that died.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        self.write(&self.attempt).await
    }

    /// Records how the attempt ended: in `done.json` where that settles the job, else in the attempt's own record.
    ///
    /// The outcome that counts may be another worker's; what is returned is this one's.
    pub(crate) async fn end(&self, outcome: &Outcome) -> Result<(), Error> {
        if matches!(outcome.verdict, Verdict::Succeeded(_) | Verdict::Failed(_)) {
            let bytes = serde_json::to_vec_pretty(outcome).map_err(|error| Error::Document(error.to_string()))?;
            self.store.put_if_absent(&keys::done(&outcome.request, &outcome.job), bytes.into()).await?;
        } else {
            self.write(&Attempt { ended: Some(outcome.clone()), ..self.attempt.clone() }).await?;
        }
        Ok(())
    }

    /// The attempt's outcome, now that it ended with `verdict`.
    pub(crate) fn outcome(&self, job: &Job, verdict: Verdict) -> Outcome {
        Outcome {
            version: VERSION,
            job: job.id.clone(),
            request: job.request.clone(),
            site: job.site.clone(),
            attempt: job.attempt,
            worker: self.attempt.worker.clone(),
            started_at: self.attempt.started_at.clone(),
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            verdict,
        }
    }

    async fn write(&self, attempt: &Attempt) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(attempt).map_err(|error| Error::Document(error.to_string()))?;
        self.store.put(&self.key, bytes.into()).await?;
        Ok(())
    }
}
