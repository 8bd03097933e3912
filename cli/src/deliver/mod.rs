//! Delivery to an archive (PACS) by DICOMweb: files are stored by STOW-RS, searched for by QIDO-RS, and what became of each is in a
//! record, by which a second run goes on.

mod address;
mod answer;
mod check;
mod credentials;
mod http;
mod multipart;
mod plan;
mod reasons;
mod record;
mod retry;
mod send;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use hiresmed_imaging::dicom::ReadOptions;
use tokio_util::sync::CancellationToken;

pub use self::{address::Address, credentials::Sources, http::Http, record::Outcome, retry::Patience};
use self::{
    plan::{Item, Plan},
    record::Record,
    send::Sender,
};
use crate::{progress::Progress, signals, stamp::Stamp};

/// What is to be delivered, where to, and how.
pub struct Order<'a> {
    pub paths: &'a [PathBuf],
    /// Whether files go that do not say that they are synthetic.
    pub any: bool,
    pub options: ReadOptions,
    pub report: &'a Path,
    pub address: Address,
    pub http: Http,
    pub patience: Patience,
    pub batch_bytes: u64,
    pub connections: usize,
    /// How long what was stored is searched for.
    pub check_for: Duration,
}

/// How a delivery ended.
pub struct Ended {
    /// Files by what became of them.
    pub counts: BTreeMap<Outcome, usize>,
    /// Of those that are there: what earlier runs had seen there.
    pub before: usize,
    /// Files that are no DICOM.
    pub others: usize,
    pub stopped: bool,
    /// What ended it before its time.
    pub error: Option<anyhow::Error>,
}

/// What all parts of a run use.
struct Shared {
    address: Address,
    http: Http,
    patience: Patience,
    stop: CancellationToken,
    record: Mutex<Record>,
    progress: Mutex<(Progress, u64)>,
}

impl Shared {
    /// Records what became of a file.
    fn settle(&self, item: &Item, outcome: Outcome, reason: Option<String>) -> Result<()> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).put(item.line(outcome, reason))?;
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.1 += 1;
        let (shown, done) = &mut *progress;
        shown.done(*done);
        Ok(())
    }

    /// Records that a file was found there; what was noted at its storing stays.
    fn verified(&self, item: &Item) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let known = record.known(&item.name(), item.stamp).filter(|line| line.outcome == Outcome::Stored);
        let note = known.and_then(|line| line.reason.clone());
        record.put(item.line(Outcome::Verified, note))
    }
}

/// Delivers.
///
/// # Errors
/// The files cannot be listed, or the record cannot be written. What goes wrong with the archive is in the result.
pub fn deliver(order: Order<'_>) -> Result<Ended> {
    let sources = plan::sources(order.paths)?;
    let mut record = Record::open(order.report, order.address.root())?;
    let mut looking = Progress::begin("files", sources.len() as u64, 0);
    looking.stage("looking");
    let plan = plan::plan(&sources, &record, order.any, order.options, |seen| looking.done(seen as u64));
    looking.end();
    let before = plan.settled.iter().filter(|line| line.outcome == Outcome::Verified).count();
    let mut files: Vec<(String, Stamp)> = Vec::new();
    for line in &plan.settled {
        files.push((line.path.clone(), line.stamp));
        if line.outcome != Outcome::Verified {
            record.put(line.clone())?;
        }
    }
    files.extend(plan.send.iter().chain(&plan.check).map(|item| (item.name(), item.stamp)));
    let others = plan.others;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("the program's runtime cannot be started")?;
    let stop = CancellationToken::new();
    let shared = Shared {
        address: order.address,
        http: order.http,
        patience: order.patience,
        stop: stop.clone(),
        record: Mutex::new(record),
        progress: Mutex::new((Progress::begin("files", plan.send.len() as u64, 0), 0)),
    };
    let error = runtime.block_on(async {
        signals::cancel_on_signal(stop.clone());
        work(&shared, plan, order.batch_bytes, order.connections, order.check_for).await.err()
    });
    let record = shared.record.into_inner().unwrap_or_else(PoisonError::into_inner);
    shared.progress.into_inner().unwrap_or_else(PoisonError::into_inner).0.end();
    record.finish()?;
    let mut counts = BTreeMap::new();
    for (path, stamp) in files {
        let outcome = record.known(&path, stamp).map_or(Outcome::Unsent, |line| line.outcome);
        *counts.entry(outcome).or_default() += 1;
    }
    Ok(Ended { counts, before, others, stopped: stop.is_cancelled(), error })
}

async fn work(shared: &Shared, plan: Plan, batch_bytes: u64, connections: usize, check_for: Duration) -> Result<()> {
    let Plan { mut send, check, .. } = plan;
    // What is not there after all is sent again.
    if !check.is_empty() {
        let missing = check::check(shared, check, Duration::ZERO, Outcome::Stored).await?;
        send.extend(missing);
    }
    let sender = Sender::new(shared, send, batch_bytes);
    let (stored, sent) = sender.all(connections).await;
    for item in sender.left() {
        shared.settle(&item, Outcome::Unsent, None)?;
    }
    if sent.is_ok() && !stored.is_empty() {
        check::check(shared, stored, check_for, Outcome::Missing).await?;
    }
    sent
}
