//! Taking messages from a queue. Each consumer has a channel of its own: what it did not settle goes back when that closes.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::time::timeout;

use super::{Shared, line, message, settling::Held};
use crate::queue::{Consumer, Delivery, Error, Result};

/// How often a consumer that waits looks whether its channel is still there.
const LOOK: Duration = Duration::from_secs(1);

/// A consumer.
pub(super) struct Receiver {
    endpoint: String,
    channel: Channel,
    deliveries: lapin::Consumer,
    held: Arc<Held>,
}

impl Receiver {
    /// Consumes from `queue`.
    pub(super) async fn start(shared: &Shared, queue: &str, prefetch: u16) -> Result<Self> {
        let name = message::short(queue).ok_or_else(|| Error::UnknownQueue(queue.to_owned()))?;
        let line = &shared.consuming;
        let channel = line.channel(shared.patience.connect).await?;
        let failed = |error| line::of_queue(&shared.endpoint, queue, &error);
        line.answer(channel.basic_qos(prefetch, BasicQosOptions::default())).await?.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let consuming = channel.basic_consume(name, "".into(), options, FieldTable::default());
        let deliveries = line.answer(consuming).await?.map_err(failed)?;
        Ok(Self { endpoint: shared.endpoint.clone(), channel, deliveries, held: Arc::default() })
    }
}

#[async_trait]
impl Consumer for Receiver {
    async fn next(&mut self) -> Result<Delivery> {
        let next = loop {
            match timeout(LOOK, self.deliveries.next()).await {
                Ok(next) => break next,
                // A connection that breaks at the wrong moment ends without telling its consumers.
                Err(_) if !self.channel.status().connected() => break None,
                Err(_) => {}
            }
        };
        match next {
            Some(Ok(delivery)) => {
                let count = message::delivery_count(&delivery.properties);
                let message = message::received(&delivery.properties, delivery.data);
                let settlement = self.held.hold(message.id.clone(), delivery.delivery_tag, delivery.acker);
                Ok(Delivery::new(message, count, delivery.redelivered || count > 0, Box::new(settlement)))
            }
            Some(Err(error)) => Err(line::unreachable(&self.endpoint, error)),
            None => Err(line::unreachable(&self.endpoint, "the broker ended the consumer; its queue may be gone")),
        }
    }

    async fn close(self: Box<Self>) -> Result<()> {
        if !self.channel.status().connected() {
            // With its channel gone the broker has everything back already.
            return Ok(());
        }
        // A broker that is behind keeps the last settlements back. Cancelling sends them on before it is answered; a channel
        // that closes drops them, and what was rejected comes again.
        let closing = async {
            self.channel.basic_cancel(self.deliveries.tag(), BasicCancelOptions::default()).await?;
            self.channel.close(200, "closed".into()).await
        };
        match closing.await {
            Err(error) if self.channel.status().connected() => Err(line::unreachable(&self.endpoint, error)),
            _ => Ok(()),
        }
    }
}
