//! What a site uses, held against its quotas.
//!
//! The store is asked, not a counter: nothing gets out of step. Two coordinators that accept at the same moment may let a
//! site exceed a quota by what each accepts; a single one does not, because it takes a site's submissions one by one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt, stream};
use hiresmed_protocol::{Request, SiteId};
use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;
use crate::{Error, Ledger, sites::Quotas};

/// How long a sum of stored bytes is believed. Uploads through this coordinator are added to it at once.
const BELIEVED: Duration = Duration::from_secs(300);

/// Objects whose sizes are asked for at a time.
const AT_A_TIME: usize = 32;

/// Seconds after which a caller may hope that requests have ended.
const RETRY_S: u64 = 60;

/// Seconds after which a caller may hope that an operator has made room.
const RETRY_STORAGE_S: u64 = 3600;

/// What a site uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Used {
    /// Requests that are not over.
    pub open_requests: u64,
    /// Images of these requests, made or not; of an unbounded one those that may be made ahead of its readers.
    pub images_in_flight: u64,
    /// Bytes of inputs, exemplars and outputs in the store; up to five minutes old.
    pub stored_bytes: u64,
}

#[derive(Default)]
struct Account {
    /// Held while a submission is accepted.
    submitting: Arc<tokio::sync::Mutex<()>>,
    stored: Option<(Instant, u64)>,
}

/// What sites use.
pub struct Usage {
    ledger: Ledger,
    /// Images of an unbounded request that are made ahead of its readers at most.
    ahead: u64,
    accounts: Mutex<BTreeMap<SiteId, Account>>,
}

impl Usage {
    /// What sites use in the store of `ledger`, at most `ahead` images of an unbounded request being made ahead of its readers.
    pub fn new(ledger: Ledger, ahead: u64) -> Self {
        Self { ledger, ahead, accounts: Mutex::default() }
    }

    /// The right to accept a submission of `site`: one at a time.
    pub async fn turn(&self, site: &SiteId) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.account(site, |account| account.submitting.clone());
        lock.lock_owned().await
    }

    /// What a site uses now.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(&self, site: &SiteId) -> Result<Used, Error> {
        let mut used = Used { stored_bytes: self.stored_bytes(site).await?, ..Used::default() };
        for (_, request) in self.ledger.open_requests(Some(site)).await? {
            used.open_requests += 1;
            match self.ledger.request(&request).await {
                Ok(request) => used.images_in_flight += self.images(&request),
                Err(Error::UnknownRequest(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }

    /// The images of a request that count as in flight while it is open.
    fn images(&self, request: &Request) -> u64 {
        match request {
            // One job at least is made ahead, however many images it has.
            Request::Synthesise(request) => {
                request.count.bound().unwrap_or_else(|| self.ahead.max(request.chunk.unwrap_or(0)))
            }
            Request::Train(_) | Request::Candidates(_) => 0,
        }
    }

    /// Refuses a request where a quota has no room for it.
    ///
    /// # Errors
    /// A problem of status 429, or the store's.
    pub async fn check_request(&self, site: &SiteId, quotas: &Quotas, request: &Request) -> Result<(), Problem> {
        let (used, images) = (self.of(site).await?, self.images(request));
        let wait = "wait until some are over, cancel some, or ask an operator for more";
        if used.open_requests >= quotas.open_requests {
            let (used, most) = (used.open_requests, quotas.open_requests);
            return Err(Problem::quota(format!("{used} requests are open and the quota is {most}: {wait}"), RETRY_S));
        }
        if used.images_in_flight.saturating_add(images) > quotas.images_in_flight {
            let (used, most) = (used.images_in_flight, quotas.images_in_flight);
            let text = format!("{used} images are in flight, {images} more exceed the quota of {most}: {wait}");
            return Err(Problem::quota(text, RETRY_S));
        }
        check_stored(used.stored_bytes, 0, quotas)
    }

    /// Refuses `more` bytes where the quota has no room for them, and says how many bytes it has room for.
    ///
    /// # Errors
    /// A problem of status 429, or the store's.
    pub async fn check_upload(&self, site: &SiteId, quotas: &Quotas, more: u64) -> Result<u64, Problem> {
        let stored = self.stored_bytes(site).await?;
        check_stored(stored, more, quotas)?;
        Ok(quotas.stored_bytes.saturating_sub(stored))
    }

    /// Adds an upload to what is believed to be stored.
    pub fn uploaded(&self, site: &SiteId, bytes: u64) {
        self.account(site, |account| {
            if let Some((_, stored)) = &mut account.stored {
                *stored = stored.saturating_add(bytes);
            }
        });
    }

    async fn stored_bytes(&self, site: &SiteId) -> Result<u64, Error> {
        let known = self.account(site, |account| account.stored);
        if let Some((when, bytes)) = known
            && when.elapsed() < BELIEVED
        {
            return Ok(bytes);
        }
        let mut bytes = 0;
        for kind in ["inputs", "exemplars", "objects"] {
            let listed = self.ledger.store().list(&format!("sites/{site}/{kind}/")).await?;
            let heads = stream::iter(listed).map(|key| {
                let store = self.ledger.store().clone();
                async move { store.head(&key).await }
            });
            let sizes = heads.buffer_unordered(AT_A_TIME).map_ok(|head| head.map_or(0, |head| head.size_bytes));
            bytes += sizes.try_fold(0_u64, async |sum, size| Ok(sum + size)).await?;
        }
        self.account(site, |account| account.stored = Some((Instant::now(), bytes)));
        Ok(bytes)
    }

    fn account<T>(&self, site: &SiteId, work: impl FnOnce(&mut Account) -> T) -> T {
        // A map is whole after every call, also where a thread panicked in between.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        work(accounts.entry(site.clone()).or_default())
    }
}

fn check_stored(stored: u64, more: u64, quotas: &Quotas) -> Result<(), Problem> {
    if stored < quotas.stored_bytes && stored.saturating_add(more) <= quotas.stored_bytes {
        return Ok(());
    }
    let text = format!(
        "{stored} bytes are stored and the quota is {}: ask an operator for more, or to remove what is not needed",
        quotas.stored_bytes
    );
    Err(Problem::quota(text, RETRY_STORAGE_S))
}
