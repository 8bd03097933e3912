//! Receiving events and control messages: an exclusive queue that vanishes with its subscriber.

use async_trait::async_trait;
use futures::StreamExt;
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{Shared, line, message, topology};
use crate::queue::{Error, Notice, Result, Subscription};

/// How many notices the broker keeps for a subscriber: who is further behind loses the oldest.
const KEPT: i64 = 20_000;

/// How many are on their way to it.
const PREFETCH: u16 = 256;

/// A subscriber.
pub(super) struct Subscriber {
    endpoint: String,
    notices: lapin::Consumer,
    /// The last one given out; acknowledged with the next call, so that none is lost when a call is given up.
    last: Option<Acker>,
    _channel: Channel,
}

impl Subscriber {
    /// Subscribes to what goes through `exchange` with a topic that matches `pattern`.
    pub(super) async fn start(shared: &Shared, exchange: &str, pattern: &str) -> Result<Self> {
        let endpoint = shared.endpoint.clone();
        let pattern = message::short(pattern).ok_or_else(|| Error::Backend {
            endpoint: endpoint.clone(),
            cause: format!("the pattern has {} bytes; it may have 255", pattern.len()),
        })?;
        let channel = shared.consuming.channel(shared.patience.connect).await?;
        let failed = |error| line::of_queue(&endpoint, exchange, &error);
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(KEPT));
        arguments.insert("x-overflow".into(), topology::text("drop-head"));
        let queue = channel.queue_declare("".into(), options, arguments).await.map_err(failed)?.name().clone();
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(queue.clone(), exchange.into(), pattern, bind, FieldTable::default())
            .await
            .map_err(failed)?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)?;
        let consume = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
        let notices = channel.basic_consume(queue, "".into(), consume, FieldTable::default()).await.map_err(failed)?;
        Ok(Self { endpoint, notices, last: None, _channel: channel })
    }
}

#[async_trait]
impl Subscription for Subscriber {
    async fn next(&mut self) -> Result<Notice> {
        if let Some(last) = self.last.take() {
            // All up to it: one whose acknowledgement was given up is among them. A lost connection shows just below.
            let _ = last.ack(BasicAckOptions { multiple: true }).await;
        }
        match self.notices.next().await {
            Some(Ok(notice)) => {
                self.last = Some(notice.acker);
                Ok(Notice { topic: notice.routing_key.to_string(), payload: notice.data.into() })
            }
            Some(Err(error)) => Err(line::unreachable(&self.endpoint, error)),
            None => Err(line::unreachable(&self.endpoint, "the broker ended the subscription")),
        }
    }
}
