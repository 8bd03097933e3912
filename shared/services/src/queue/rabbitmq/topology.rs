//! What has to exist on the broker, and its declaration.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{line, message};
use crate::queue::{Declaration, Error};

/// Direct exchange of the jobs; the routing key is the queue's name.
pub(super) const JOBS: &str = "hiresmed.jobs";

/// Topic exchange of the events.
pub(super) const EVENTS: &str = "hiresmed.events";

/// Fan-out exchange of the control messages.
pub(super) const CONTROL: &str = "hiresmed.control";

/// Fan-out exchange of the dead letters, and the queue that keeps them.
pub(super) const DEAD: &str = "hiresmed.dead";

/// The queues that were declared: declared again on every new connection, because the broker may have come back empty.
#[derive(Default)]
pub(super) struct Topology {
    declared: Mutex<BTreeMap<String, Declaration>>,
}

/// Why a declaration failed.
pub(super) enum Failed {
    /// The name is longer than AMQP's 255 bytes.
    Name,
    Broker(lapin::Error),
}

impl From<lapin::Error> for Failed {
    fn from(error: lapin::Error) -> Self {
        Failed::Broker(error)
    }
}

impl Failed {
    /// The error that the caller gets. 406 says that the queue exists with other properties.
    pub(super) fn of_declaration(self, endpoint: &str, declaration: &Declaration) -> Error {
        let queue = declaration.queue.clone();
        match self {
            Failed::Name => Error::Backend {
                endpoint: endpoint.to_owned(),
                cause: format!("the queue's name has {} bytes; it may have 255", queue.len()),
            },
            Failed::Broker(error) if line::reply(&error) == Some(406) => Error::Mismatch {
                queue,
                existing: format!("other properties ({error})"),
                wanted: format!("a delivery limit of {}", declaration.delivery_limit),
            },
            Failed::Broker(error) => match line::of_queue(endpoint, &queue, &error) {
                // An exchange is missing: somebody deleted it.
                Error::UnknownQueue(_) => Error::Backend { endpoint: endpoint.to_owned(), cause: error.to_string() },
                error => error,
            },
        }
    }
}

impl Topology {
    /// Declares a queue, and remembers it.
    pub(super) async fn declare(&self, channel: &Channel, declaration: &Declaration) -> Result<(), Failed> {
        declare_queue(channel, declaration).await?;
        let mut declared = self.declared.lock().unwrap_or_else(PoisonError::into_inner);
        declared.insert(declaration.queue.clone(), declaration.clone());
        Ok(())
    }

    /// Declares everything on a new connection.
    pub(super) async fn restore(&self, connection: &Connection) -> lapin::Result<()> {
        let channel = connection.create_channel().await?;
        for (exchange, kind) in [
            (JOBS, ExchangeKind::Direct),
            (EVENTS, ExchangeKind::Topic),
            (CONTROL, ExchangeKind::Fanout),
            (DEAD, ExchangeKind::Fanout),
        ] {
            let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            channel.exchange_declare(exchange.into(), kind, durable, FieldTable::default()).await?;
        }
        declare_dead(connection).await?;
        let declared: Vec<Declaration> =
            self.declared.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for declaration in declared {
            let channel = connection.create_channel().await?;
            match declare_queue(&channel, &declaration).await {
                // Somebody has made it anew with other properties: its users go on, who declares it is told.
                Err(Failed::Broker(error)) if line::reply(&error) == Some(406) => {
                    tracing::warn!(queue = declaration.queue, %error, "a queue came back with other properties");
                }
                Err(Failed::Broker(error)) => return Err(error),
                Err(Failed::Name) | Ok(()) => {}
            }
        }
        Ok(())
    }
}

async fn declare_queue(channel: &Channel, declaration: &Declaration) -> Result<(), Failed> {
    let name = message::short(&declaration.queue).ok_or(Failed::Name)?;
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(declaration.delivery_limit.into()));
    arguments.insert("x-dead-letter-exchange".into(), text(DEAD));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    // At-least-once dead lettering demands it: no message is dropped for room.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    channel.queue_declare(name.clone(), durable(), arguments).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind(name.clone(), JOBS.into(), name, bind, FieldTable::default()).await?;
    Ok(())
}

/// Looking at dead letters counts as delivering them, so their queue has a limit that nobody reaches. RabbitMQ 4 would set 20
/// where none is given; -1, which means none there, makes 3.10 drop a message when it comes back first.
const LOOKS: i64 = 2_000_000_000;

async fn declare_dead(connection: &Connection) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let mut arguments = quorum();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(LOOKS));
    channel.queue_declare(DEAD.into(), durable(), arguments).await?;
    channel.queue_bind(DEAD.into(), DEAD.into(), "".into(), QueueBindOptions::default(), FieldTable::default()).await
}

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

pub(super) fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}
