//! A consumer: waits for messages and leases them one at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::{
    POLL, Shared,
    lease::{self, Lease},
    rows::{self, Leased},
};
use crate::queue::{Consumer, Delivery, Error, Result, Settlement, Verdict};

/// How often a waiting consumer looks for dead ones.
const LOOK_FOR_DEAD: Duration = Duration::from_millis(150);

/// Takes messages from one queue.
pub(super) struct Leaseholder {
    shared: Arc<Shared>,
    queue: String,
    prefetch: usize,
    lease: Option<Lease>,
    standing: Arc<Standing>,
    /// A lease under way. It outlives a dropped future of `next`, and the following call takes its message.
    pending: Option<JoinHandle<Result<Option<Leased>>>>,
    looked_for_dead: Option<Instant>,
}

/// What a consumer and its deliveries share.
struct Standing {
    consumer: String,
    unsettled: AtomicUsize,
    closed: AtomicBool,
}

impl Leaseholder {
    pub(super) async fn start(shared: Arc<Shared>, queue: String, prefetch: u16) -> Result<Self> {
        let (here, name) = (shared.clone(), queue.clone());
        let registered = tokio::task::spawn_blocking(move || Lease::register(&here, &name)).await;
        let lease = registered.unwrap_or_else(|stopped| Err(shared.durable.stopped(&stopped)))?;
        let standing = Arc::new(Standing {
            consumer: lease.consumer.clone(),
            unsettled: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        Ok(Self {
            shared,
            queue,
            prefetch: prefetch.into(),
            lease: Some(lease),
            standing,
            pending: None,
            looked_for_dead: None,
        })
    }

    /// Leases a message if one is ready. Cancellation-safe.
    async fn try_next(&mut self) -> Result<Option<Delivery>> {
        if self.pending.is_none() {
            let look_for_dead = self.looked_for_dead.is_none_or(|at| at.elapsed() >= LOOK_FOR_DEAD);
            if look_for_dead {
                self.looked_for_dead = Some(Instant::now());
            }
            let (shared, queue, consumer) = (self.shared.clone(), self.queue.clone(), self.standing.consumer.clone());
            self.pending = Some(tokio::task::spawn_blocking(move || take(&shared, &queue, &consumer, look_for_dead)));
        }
        let Some(pending) = self.pending.as_mut() else { return Ok(None) };
        let finished = pending.await;
        self.pending = None;
        let leased = finished.unwrap_or_else(|stopped| Err(self.shared.durable.stopped(&stopped)))?;
        Ok(leased.map(|leased| {
            self.standing.unsettled.fetch_add(1, Ordering::SeqCst);
            let settlement =
                Settle { shared: self.shared.clone(), standing: self.standing.clone(), number: leased.number };
            Delivery::new(leased.message, leased.returns, leased.returns > 0, Box::new(settlement))
        }))
    }
}

fn take(shared: &Shared, queue: &str, consumer: &str, look_for_dead: bool) -> Result<Option<Leased>> {
    if look_for_dead {
        lease::return_abandoned_blocking(shared)?;
    }
    if !shared.durable.look(|db| rows::is_ready(db, queue))? {
        return Ok(None);
    }
    shared.durable.transact(|db| rows::lease(db, queue, consumer))
}

#[async_trait]
impl Consumer for Leaseholder {
    async fn next(&mut self) -> Result<Delivery> {
        let shared = self.shared.clone();
        loop {
            // Registered before looking, so that what is published meanwhile wakes us.
            let mut woken = std::pin::pin!(shared.messages.notified());
            woken.as_mut().enable();
            if self.standing.unsettled.load(Ordering::SeqCst) < self.prefetch
                && let Some(delivery) = self.try_next().await?
            {
                return Ok(delivery);
            }
            // Elapsed or woken, we look again.
            let _ = tokio::time::timeout(POLL, woken).await;
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.standing.closed.store(true, Ordering::SeqCst);
        if let Some(pending) = self.pending.take() {
            // What it leased is returned with the rest.
            let _ = pending.await;
        }
        let shared = self.shared.clone();
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let done = tokio::task::spawn_blocking(move || lease.release(&shared)).await;
        done.unwrap_or_else(|stopped| Err(self.shared.durable.stopped(&stopped)))
    }
}

impl Drop for Leaseholder {
    fn drop(&mut self) {
        self.standing.closed.store(true, Ordering::SeqCst);
        let lease = self.lease.take();
        // A lease under way is finished by the runtime; only then is it safe to let others take over.
        let (pending, shared) = (self.pending.take(), self.shared.clone());
        let Some(lease) = lease else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Some(pending) = pending {
                    let _ = pending.await;
                }
                let _ = tokio::task::spawn_blocking(move || lease.release(&shared)).await;
            });
        }
        // Without a runtime the lock falls here, and whoever waits returns the deliveries.
    }
}

/// Settles one delivery.
struct Settle {
    shared: Arc<Shared>,
    standing: Arc<Standing>,
    number: i64,
}

#[async_trait]
impl Settlement for Settle {
    async fn settle(self: Box<Self>, verdict: Verdict) -> Result<()> {
        let Settle { shared, standing, number } = *self;
        let settled = || Error::Settled(format!("message {number}"));
        if standing.closed.load(Ordering::SeqCst) {
            return Err(settled());
        }
        let here = standing.clone();
        let work = shared.durable.call(move |db| match verdict {
            Verdict::Acknowledge => rows::acknowledge(db, number, &here.consumer),
            Verdict::Requeue => rows::give_back(db, Some(number), &here.consumer).map(|returned| returned == 1),
            Verdict::Reject => rows::reject(db, number, &here.consumer),
        });
        let ours = work.await?;
        standing.unsettled.fetch_sub(1, Ordering::SeqCst);
        shared.messages.notify_waiters();
        if ours { Ok(()) } else { Err(settled()) }
    }
}
