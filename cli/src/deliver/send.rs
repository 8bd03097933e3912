//! STOW-RS (PS3.18 10.5): batches of files are stored, and what became of each is recorded. A batch that is refused as a whole is
//! sent in halves until the file is found that is to blame; one that is too large makes all that follow smaller.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use anyhow::{Result, anyhow};
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    answer::{self, Given},
    http::Answer,
    multipart::{Multipart, Part},
    plan::Item,
    reasons,
    record::Outcome,
    retry::{self, Kind, Tried},
};

/// After so many attempts at which the archive failed in the middle of a batch, it may be one of its files.
const SUSPICIOUS: u32 = 3;
/// So many files in a row that the archive failed at are not to blame themselves.
const IN_VAIN: usize = 3;

/// Everything that is to be sent, and who sends it.
pub struct Sender<'a> {
    shared: &'a Shared,
    queue: Mutex<VecDeque<Item>>,
    /// Bytes of a batch: less after an archive said that it was too large.
    batch_bytes: AtomicU64,
    in_vain: AtomicUsize,
    /// Ends the waits of all when one gives up.
    halt: CancellationToken,
    stored: Mutex<Vec<Item>>,
}

/// What is left to do with a batch.
enum Rest {
    /// Nothing.
    Done,
    /// Send these again, fewer at a time.
    Again(Vec<Item>),
}

impl<'a> Sender<'a> {
    pub fn new(shared: &'a Shared, queue: VecDeque<Item>, batch_bytes: u64) -> Self {
        Self {
            shared,
            queue: Mutex::new(queue),
            batch_bytes: AtomicU64::new(batch_bytes),
            in_vain: AtomicUsize::new(0),
            halt: shared.stop.child_token(),
            stored: Mutex::default(),
        }
    }

    /// Sends everything over `connections` at a time, and gives what the archive says that it has stored.
    ///
    /// # Errors
    /// The archive takes nothing any more, or the record cannot be written. What was stored until then is given too.
    pub async fn all(&self, connections: usize) -> (Vec<Item>, Result<()>) {
        let turns = (0..connections).map(|_| self.turn());
        let ended = futures::future::join_all(turns).await.into_iter().find(Result::is_err).unwrap_or(Ok(()));
        (std::mem::take(&mut *lock(&self.stored)), ended)
    }

    /// What was not sent.
    pub fn left(self) -> VecDeque<Item> {
        self.queue.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self) -> Result<()> {
        while !self.halt.is_cancelled() {
            let batch = self.take();
            if batch.is_empty() {
                break;
            }
            if let Err(error) = self.batch(batch).await {
                self.halt.cancel();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Files of a batch: at least one.
    fn take(&self) -> Vec<Item> {
        let mut queue = lock(&self.queue);
        let (mut batch, mut left) = (Vec::new(), self.batch_bytes.load(Ordering::Relaxed));
        while let Some(item) = queue.front() {
            if !batch.is_empty() && item.stamp.size_bytes > left {
                break;
            }
            left = left.saturating_sub(item.stamp.size_bytes);
            batch.extend(queue.pop_front());
        }
        batch
    }

    async fn batch(&self, batch: Vec<Item>) -> Result<()> {
        let mut stack = vec![batch];
        while let Some(mut batch) = stack.pop() {
            if self.halt.is_cancelled() {
                lock(&self.queue).extend(batch);
                continue;
            }
            let sent = self.send(&mut batch).await;
            match sent {
                Ok(Rest::Done) => {}
                Ok(Rest::Again(mut rest)) => {
                    let second = rest.split_off(rest.len().div_ceil(2));
                    stack.extend([second, rest].into_iter().filter(|half| !half.is_empty()));
                }
                Err(error) => {
                    lock(&self.queue).extend(batch.into_iter().chain(stack.into_iter().flatten()));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Sends a batch until there is an answer.
    async fn send(&self, batch: &mut Vec<Item>) -> Result<Rest> {
        let patience = self.shared.patience;
        let (mut attempt, mut suspicions) = (0, 0);
        loop {
            let parts: Arc<[Part]> =
                batch.iter().map(|item| Part { path: item.path.clone(), stamp: item.stamp }).collect();
            let body = Multipart::new(parts)?;
            let (content_type, length, unreadable) = (body.content_type(), body.length(), body.unreadable());
            batch.iter_mut().for_each(|item| item.attempts += 1);
            let address = self.shared.address.resource("studies");
            let called = self.shared.http.post(&address, &content_type, length, body.stream()).await;
            // That is our file's fault, whatever the archive made of half a body.
            if let Some((number, reason)) = unreadable.get() {
                let item = batch.remove(number);
                self.shared.settle(&item, Outcome::Unreadable, Some(reason))?;
                if batch.is_empty() {
                    return Ok(Rest::Done);
                }
                continue;
            }
            let (why, asked, kind) = match retry::sort(called) {
                Tried::Answer(answer) => return self.settle(std::mem::take(batch), &answer),
                Tried::Never(why) => return Err(anyhow!(why)),
                Tried::Again { why, asked, kind } => (why, asked, kind),
            };
            suspicions += u32::from(kind == Kind::Content);
            if batch.len() > 1 && suspicions >= SUSPICIOUS.min(patience.retries + 1) {
                return Ok(Rest::Again(std::mem::take(batch)));
            }
            if attempt >= patience.retries {
                return self.give_up(batch, kind, why);
            }
            if !patience.rest(attempt, asked, &why, &self.halt).await {
                lock(&self.queue).extend(batch.drain(..));
                return Ok(Rest::Done);
            }
            attempt += 1;
        }
    }

    /// After the last attempt at a batch.
    fn give_up(&self, batch: &mut Vec<Item>, kind: Kind, why: String) -> Result<Rest> {
        let in_vain = self.in_vain.fetch_add(1, Ordering::Relaxed) + 1;
        let lost = kind == Kind::Archive || in_vain >= IN_VAIN;
        for item in batch.drain(..) {
            self.shared.settle(&item, Outcome::Failed, Some(why.clone()))?;
        }
        if lost { Err(anyhow!("{why}, after {} attempts", self.shared.patience.retries + 1)) } else { Ok(Rest::Done) }
    }

    /// Records what an answer says of each file, and gives those that it says nothing of.
    fn settle(&self, batch: Vec<Item>, answer: &Answer) -> Result<Rest> {
        let status = answer.status;
        if let Some(text) = retry::fatal(status, self.shared.address.root()) {
            lock(&self.queue).extend(batch);
            return Err(anyhow!(text));
        }
        self.in_vain.store(0, Ordering::Relaxed);
        let (alone, bytes) = (batch.len() == 1, batch.iter().map(|item| item.stamp.size_bytes).sum::<u64>());
        let (said, unclear) = match answer::stored(&answer.body) {
            Ok(said) => (said, None),
            Err(error) => (answer::Stored::default(), Some(error)),
        };
        let mut rest = Vec::new();
        for item in batch {
            match said.instances.get(&item.sop_instance) {
                Some(Given::Stored(warning)) => self.stored(item, warning.map(reasons::describe))?,
                Some(Given::Failed(Some(reasons::DUPLICATE))) => {
                    self.stored(item, Some(reasons::describe(reasons::DUPLICATE)))?;
                }
                Some(Given::Failed(reason)) => {
                    let reason = reason.map_or_else(|| format!("HTTP {status}, without a reason"), reasons::describe);
                    self.shared.settle(&item, Outcome::Refused, Some(reason))?;
                }
                // A success that names nobody; whether it is one is seen afterwards.
                None if status.is_success() && said.nameless.is_empty() => {
                    let cause = unclear.as_deref().unwrap_or("it does not name this instance");
                    self.stored(item, Some(format!("HTTP {status}, and an answer that says nothing of it: {cause}")))?;
                }
                None if alone => {
                    let reason = said.nameless.first().copied().flatten().map(reasons::describe);
                    let reason =
                        reason.map_or_else(|| format!("HTTP {status}"), |reason| format!("HTTP {status}, {reason}"));
                    self.shared.settle(&item, Outcome::Refused, Some(reason))?;
                }
                None => rest.push(item),
            }
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE && !rest.is_empty() {
            // Cut anew: this and all that follow are smaller.
            self.batch_bytes.fetch_min((bytes / 2).max(1), Ordering::Relaxed);
            let mut queue = lock(&self.queue);
            rest.drain(..).rev().for_each(|item| queue.push_front(item));
        }
        Ok(if rest.is_empty() { Rest::Done } else { Rest::Again(rest) })
    }

    fn stored(&self, item: Item, note: Option<String>) -> Result<()> {
        self.shared.settle(&item, Outcome::Stored, note)?;
        lock(&self.stored).push(item);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
