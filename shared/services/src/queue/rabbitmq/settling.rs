//! Settling deliveries. Acknowledgements that are ready while another one is being sent go together, as one "all up to this one":
//! each that goes alone is an entry of its own in a quorum queue's log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
use lapin::{
    Acker,
    options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions},
    types::DeliveryTag,
};
use tokio::time::timeout;

use crate::queue::{Error, Result, Settlement, Verdict};

/// The longest time for a settlement to be sent.
const SENT: Duration = Duration::from_secs(10);

/// The deliveries of one channel that are not settled.
#[derive(Default)]
pub(super) struct Held {
    book: Mutex<Book>,
    /// Held while settlements are sent: an acknowledgement for several must not pass a return of one of them.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Book {
    /// Delivered and not settled.
    open: BTreeSet<DeliveryTag>,
    /// Those of them whose acknowledgement waits to be sent.
    acknowledged: BTreeMap<DeliveryTag, Acker>,
    /// Sending failed: the channel is gone, and the broker has everything back.
    lost: bool,
}

impl Book {
    /// The acknowledgements that wait: those before all others that are open by their last one, which goes for all of them, and
    /// the rest one by one.
    fn take(&mut self) -> Vec<(Acker, BasicAckOptions)> {
        self.open.retain(|tag| !self.acknowledged.contains_key(tag));
        let singles = match self.open.first() {
            Some(first) => self.acknowledged.split_off(first),
            None => BTreeMap::new(),
        };
        let through = std::mem::take(&mut self.acknowledged).pop_last();
        let multiple = |multiple| move |(_, acker): (DeliveryTag, Acker)| (acker, BasicAckOptions { multiple });
        through.into_iter().map(multiple(true)).chain(singles.into_iter().map(multiple(false))).collect()
    }
}

impl Held {
    /// Takes a delivery in.
    pub(super) fn hold(self: &Arc<Self>, id: String, tag: DeliveryTag, acker: Acker) -> Ours {
        self.book().open.insert(tag);
        Ours { id, tag, acker, held: self.clone() }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges with whatever else is ready; whether it was sent.
    async fn acknowledge(&self, tag: DeliveryTag, acker: Acker) -> bool {
        self.book().acknowledged.insert(tag, acker);
        let _turn = self.sending.lock().await;
        let ready = self.book().take();
        // All are handed over before the first one is waited for.
        let sending = join_all(ready.iter().map(|(acker, options)| acker.ack(*options)));
        let sent = timeout(SENT, sending).await;
        let sent = sent.is_ok_and(|sent| sent.iter().all(|sent| matches!(sent, Ok(true))));
        let mut book = self.book();
        book.lost |= !sent;
        !book.lost
    }

    /// Returns or rejects a delivery; whether it was sent.
    async fn give_back(&self, tag: DeliveryTag, acker: Acker, requeue: bool) -> bool {
        let _turn = self.sending.lock().await;
        let sent = timeout(SENT, async {
            match requeue {
                true => acker.nack(BasicNackOptions { multiple: false, requeue }).await,
                false => acker.reject(BasicRejectOptions { requeue }).await,
            }
        });
        let sent = matches!(sent.await, Ok(Ok(true)));
        self.book().open.remove(&tag);
        sent
    }
}

/// A delivery of ours.
pub(super) struct Ours {
    id: String,
    tag: DeliveryTag,
    acker: Acker,
    held: Arc<Held>,
}

#[async_trait]
impl Settlement for Ours {
    async fn settle(self: Box<Self>, verdict: Verdict) -> Result<()> {
        let Self { id, tag, acker, held } = *self;
        let sent = match verdict {
            Verdict::Acknowledge => held.acknowledge(tag, acker).await,
            Verdict::Requeue => held.give_back(tag, acker, true).await,
            Verdict::Reject => held.give_back(tag, acker, false).await,
        };
        // Otherwise the channel is gone, and the delivery with it.
        if sent { Ok(()) } else { Err(Error::Settled(id)) }
    }
}
