//! The store's documents about requests: the only memory that the coordinator has.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use hiresmed_protocol::{
    Attempt, Digest, ImageIndex, JobId, Outcome, Plan, Request, RequestId, SiteId, VERSION, keys, request::TrainedModel,
};
use hiresmed_services::store::{self, Put, Store};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tracing::warn;

use crate::Error;

/// Documents that are read at a time: on a store in the network, each takes a round trip.
const AT_A_TIME: usize = 32;

/// Reads and writes the documents of requests.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
}

/// Why a request ended early.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cancellation {
    /// The protocol's version: 1.
    pub version: u32,
    /// The cause, for people.
    pub reason: String,
    /// Whether images failed and the request's `on_failure = "stop"` ended it, not a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// That a request is a site's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owned {
    /// The protocol's version: 1.
    pub version: u32,
    /// When it was accepted, UTC, RFC 3339.
    pub created_at: String,
}

/// How far a reader of an unbounded request has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The protocol's version: 1.
    pub version: u32,
    /// The next image that it takes.
    pub next: ImageIndex,
    /// When it said so, UTC, RFC 3339. It differs from record to record: by that a reader is known to be alive.
    pub at: String,
}

/// A person's decision to try a failed job again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retried {
    version: u32,
    /// The first attempt that counts from now on.
    attempt: u32,
}

impl Ledger {
    /// A ledger in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Ids of all requests, sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn requests(&self) -> Result<Vec<RequestId>, Error> {
        let keys = self.store.list("requests/").await?;
        let ids = keys.iter().filter_map(|key| {
            let (id, document) = key.strip_prefix("requests/")?.split_once('/')?;
            (document == "request.json").then(|| id.parse().ok())?
        });
        Ok(ids.collect())
    }

    /// The request.
    ///
    /// # Errors
    /// [`Error::UnknownRequest`], [`Error::Document`], the store's.
    pub async fn request(&self, id: &RequestId) -> Result<Request, Error> {
        self.read(&keys::request(id)).await?.ok_or_else(|| Error::UnknownRequest(id.clone()))
    }

    /// The request's plan, if it was planned.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn plan(&self, id: &RequestId) -> Result<Option<Plan>, Error> {
        self.read(&keys::plan(id)).await
    }

    /// Records a request with its plan. Both stay as they are where they exist: the plan that counts is returned.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn accept(&self, request: &Request, plan: Plan) -> Result<Plan, Error> {
        let id = plan.request.clone();
        self.create(&keys::request(&id), request).await?;
        match self.create(&keys::plan(&id), &plan).await? {
            Put::Created => Ok(plan),
            Put::Exists => Ok(self.plan(&id).await?.unwrap_or(plan)),
        }
    }

    /// The outcome that counts, if the job is settled.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn outcome(&self, request: &RequestId, job: &JobId) -> Result<Option<Outcome>, Error> {
        self.read(&keys::done(request, job)).await
    }

    /// The outcomes of all settled jobs of a request.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn outcomes(&self, request: &RequestId) -> Result<BTreeMap<JobId, Outcome>, Error> {
        let outcomes = self.outcomes_as_read(request).await?;
        outcomes.map_ok(|outcome| (outcome.job.clone(), outcome)).try_collect().await
    }

    /// As [`Ledger::outcomes`], in the order in which they come, a few in memory at a time.
    ///
    /// # Errors
    /// The store's; [`Error::Document`] and the store's as an item.
    pub async fn outcomes_as_read(
        &self,
        request: &RequestId,
    ) -> Result<impl Stream<Item = Result<Outcome, Error>> + Send + use<'_>, Error> {
        let keys = self.store.list(&keys::jobs(request)).await?;
        let done = keys.into_iter().filter(|key| key.ends_with("/done.json"));
        let read = done.map(move |key| async move { self.read::<Outcome>(&key).await });
        let found = stream::iter(read).buffer_unordered(AT_A_TIME);
        Ok(found.try_filter_map(|outcome| std::future::ready(Ok(outcome))))
    }

    /// Settles a job; false where it was settled before.
    ///
    /// # Errors
    /// The store's.
    pub async fn settle(&self, outcome: &Outcome) -> Result<bool, Error> {
        Ok(self.create(&keys::done(&outcome.request, &outcome.job), outcome).await? == Put::Created)
    }

    /// The records of a job's starts, in the order of their attempts.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn attempts(&self, request: &RequestId, job: &JobId) -> Result<Vec<Attempt>, Error> {
        let mut attempts = Vec::new();
        for key in self.store.list(&keys::attempts(request, job)).await? {
            attempts.extend(self.read::<Attempt>(&key).await?);
        }
        Ok(attempts)
    }

    /// The first attempt that counts: 0, or that of a person's last retry.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn first_attempt(&self, request: &RequestId, job: &JobId) -> Result<u32, Error> {
        Ok(self.read::<Retried>(&retried(request, job)).await?.map_or(0, |retried| retried.attempt))
    }

    /// Opens a failed job again: its earlier attempts stay as history and count no more.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn reopen(&self, request: &RequestId, job: &JobId) -> Result<(), Error> {
        let last = self.attempts(request, job).await?.iter().map(|attempt| attempt.attempt).max();
        let attempt = last.map_or(0, |last| last + 1);
        let content = self.document(&Retried { version: VERSION, attempt })?;
        self.store.put(&retried(request, job), content).await?;
        self.store.delete(&discarded(request, job)).await?;
        Ok(self.store.delete(&keys::done(request, job)).await?)
    }

    /// Takes a failed job off the list of dead letters; it stays failed.
    ///
    /// # Errors
    /// The store's.
    pub async fn discard(&self, request: &RequestId, job: &JobId) -> Result<(), Error> {
        self.create(&discarded(request, job), &VERSION).await?;
        Ok(())
    }

    /// Whether a failed job was taken off the list of dead letters.
    ///
    /// # Errors
    /// The store's.
    pub async fn is_discarded(&self, request: &RequestId, job: &JobId) -> Result<bool, Error> {
        Ok(self.store.head(&discarded(request, job)).await?.is_some())
    }

    /// Records, once more, how far a reader of an unbounded request has come.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell_reading(&self, request: &RequestId, reader: &str, reading: &Reading) -> Result<(), Error> {
        self.write(&keys::reader(request, reader), reading).await
    }

    /// What the readers of an unbounded request said last, each by its name. Those that died are still among them.
    ///
    /// # Errors
    /// The store's.
    pub async fn readings(&self, request: &RequestId) -> Result<BTreeMap<String, Reading>, Error> {
        let prefix = keys::readers(request);
        let listed = self.store.list(&prefix).await?;
        let named = listed.into_iter().filter_map(|key| {
            let reader = key.strip_prefix(&prefix)?.strip_suffix(".json")?.to_owned();
            Some((reader, key))
        });
        let named: Vec<(String, String)> = named.collect();
        let read =
            named.into_iter().map(|(reader, key)| async move { Ok::<_, Error>((reader, self.reading(&key).await?)) });
        let found: Vec<_> = stream::iter(read).buffer_unordered(AT_A_TIME).try_collect().await?;
        // One may have ended since the listing.
        Ok(found.into_iter().filter_map(|(reader, reading)| Some((reader, reading?))).collect())
    }

    async fn reading(&self, key: &str) -> Result<Option<Reading>, Error> {
        match self.read(key).await {
            // One that cannot be read keeps nobody from dispatching for the others.
            Err(Error::Document { key, cause }) => {
                warn!(key, cause, "a reader's record cannot be read, ignoring it");
                Ok(None)
            }
            other => other,
        }
    }

    /// Forgets a reader of an unbounded request: it ended, or died.
    ///
    /// # Errors
    /// The store's.
    pub async fn forget_reading(&self, request: &RequestId, reader: &str) -> Result<(), Error> {
        Ok(self.store.delete(&keys::reader(request, reader)).await?)
    }

    /// Records that a request is `site`'s. The first record stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn own(&self, site: &SiteId, request: &RequestId, created_at: &str) -> Result<(), Error> {
        let owned = Owned { version: VERSION, created_at: created_at.to_owned() };
        self.create(&keys::owned(site, request), &owned).await?;
        Ok(())
    }

    /// The record that a request is `site`'s; `None` where it is not, or does not exist.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn owned(&self, site: &SiteId, request: &RequestId) -> Result<Option<Owned>, Error> {
        self.read(&keys::owned(site, request)).await
    }

    /// Ids of a site's requests, sorted.
    ///
    /// # Errors
    /// The store's.
    pub async fn requests_of(&self, site: &SiteId) -> Result<Vec<RequestId>, Error> {
        let prefix = keys::owned_by(site);
        let keys = self.store.list(&prefix).await?;
        let id = |key: &String| key.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok();
        Ok(keys.iter().filter_map(id).collect())
    }

    /// Marks a request as one to be dispatched, whichever coordinator is there.
    ///
    /// # Errors
    /// The store's.
    pub async fn open(&self, site: &SiteId, request: &RequestId) -> Result<(), Error> {
        self.create(&keys::open(site, request), &VERSION).await?;
        Ok(())
    }

    /// Takes the mark away: nothing is left to dispatch.
    ///
    /// # Errors
    /// The store's.
    pub async fn close(&self, site: &SiteId, request: &RequestId) -> Result<(), Error> {
        Ok(self.store.delete(&keys::open(site, request)).await?)
    }

    /// The requests that are to be dispatched, of one site or of all.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_requests(&self, site: Option<&SiteId>) -> Result<Vec<(SiteId, RequestId)>, Error> {
        let prefix = site.map_or_else(|| keys::OPEN.to_owned(), |site| format!("{}{site}/", keys::OPEN));
        let listed = self.store.list(&prefix).await?;
        let parse = |key: &String| {
            let (site, request) = key.strip_prefix(keys::OPEN)?.split_once('/')?;
            Some((site.parse().ok()?, request.parse().ok()?))
        };
        Ok(listed.iter().filter_map(parse).collect())
    }

    /// Ends a request early. An earlier reason stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn cancel(&self, request: &RequestId, reason: &str) -> Result<(), Error> {
        self.end_early(request, reason, false).await
    }

    /// Ends a request early because images failed and it says `on_failure = "stop"`. An earlier reason stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn abort(&self, request: &RequestId, reason: &str) -> Result<(), Error> {
        self.end_early(request, reason, true).await
    }

    async fn end_early(&self, request: &RequestId, reason: &str, failed: bool) -> Result<(), Error> {
        let cancellation = Cancellation { version: VERSION, reason: reason.to_owned(), failed };
        self.create(&keys::cancelled(request), &cancellation).await?;
        Ok(())
    }

    /// Why the request ended early, if it did.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn cancellation(&self, request: &RequestId) -> Result<Option<Cancellation>, Error> {
        self.read(&keys::cancelled(request)).await
    }

    /// Lets a request that ended early go on.
    ///
    /// # Errors
    /// The store's.
    pub async fn resume(&self, request: &RequestId) -> Result<(), Error> {
        Ok(self.store.delete(&keys::cancelled(request)).await?)
    }

    /// Makes `alias` stand for the package that a training request made; once a request, so that a look at an old
    /// request does not take the name back from a newer one.
    ///
    /// # Errors
    /// The store's.
    pub async fn register(&self, request: &RequestId, alias: &str, package: &Digest) -> Result<(), Error> {
        let marker = format!("requests/{request}/registered.json");
        if self.store.head(&marker).await?.is_some() {
            return Ok(());
        }
        self.store.put(alias, package.to_string().into()).await?;
        self.create(&marker, &alias).await?;
        Ok(())
    }

    /// Whether models that `site` trains may be called `name`: among all kinds in which the training may end the name is new, or the
    /// site's own since an earlier training.
    ///
    /// # Errors
    /// The store's.
    pub async fn claim(&self, model: TrainedModel, name: &str, site: &SiteId) -> Result<bool, Error> {
        for kind in model.kinds() {
            if !self.claim_kind(kind, name, site).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn claim_kind(&self, kind: &str, name: &str, site: &SiteId) -> Result<bool, Error> {
        let key = keys::alias_owner(kind, name);
        if let Some(owner) = self.read::<SiteId>(&key).await? {
            return Ok(owner == *site);
        }
        // Without an owner it came with the fleet, or an operator brought it.
        if self.store.head(&keys::alias(kind, name)).await?.is_some() {
            return Ok(false);
        }
        self.create(&key, site).await?;
        Ok(self.read::<SiteId>(&key).await?.is_some_and(|owner| owner == *site))
    }

    /// A JSON document; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Document`], the store's.
    pub async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let bytes = match self.store.get(key).await {
            Ok(bytes) => bytes,
            Err(store::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let document = serde_json::from_slice(&bytes);
        document.map(Some).map_err(|error| Error::Document { key: key.to_owned(), cause: error.to_string() })
    }

    /// Makes or replaces a JSON document.
    ///
    /// # Errors
    /// The store's.
    pub async fn write<T: Serialize>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.store.put(key, self.document(value)?).await?;
        Ok(())
    }

    /// Makes a JSON document unless one is there.
    ///
    /// # Errors
    /// The store's.
    pub async fn create<T: Serialize>(&self, key: &str, value: &T) -> Result<Put, Error> {
        Ok(self.store.put_if_absent(key, self.document(value)?).await?)
    }

    fn document<T: Serialize>(&self, value: &T) -> Result<Bytes, Error> {
        let bytes = serde_json::to_vec_pretty(value);
        bytes.map(Bytes::from).map_err(|error| Error::Document { key: String::new(), cause: error.to_string() })
    }
}

fn retried(request: &RequestId, job: &JobId) -> String {
    format!("{}{job}/retried.json", keys::jobs(request))
}

fn discarded(request: &RequestId, job: &JobId) -> String {
    format!("{}{job}/discarded.json", keys::jobs(request))
}
