//! A RabbitMQ broker, for a fleet. Written for and tested with 3.10; nothing here is gone in 4.x.
//!
//! Two connections: one publishes, one does the rest, because a broker that is short of memory stops reading from the
//! connections that publish, and acknowledgements must still reach it then. Either is opened again at the next use after
//! it was lost, with growing waits within [`Patience`], and then declares everything anew: the exchanges, the dead-letter
//! queue and every queue that was declared through this value. Consumers and subscriptions end with
//! [`Error::Unreachable`], and their owner consumes again.
//!
//! Jobs go through the direct exchange `hiresmed.jobs` to quorum queues, durable, with a delivery limit. Dead letters go
//! at least once through `hiresmed.dead` to the queue of the same name: the source keeps a message until that queue has
//! confirmed it. A publish is confirmed by the broker; where the connection is lost before, the message is published again
//! on the next one: at least once, in its old order.

mod consumer;
mod dead;
mod line;
mod message;
mod publish;
mod settling;
mod subscription;
mod topology;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    options::{QueueDeclareOptions, QueuePurgeOptions},
    types::FieldTable,
    uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo},
};
use secrecy::{ExposeSecret, SecretString};

use self::{line::Line, topology::Topology};
use super::{Consumer, DeadLetter, Declaration, Depth, Error, Message, Queue, Result, Subscription};

/// Seconds without a sign of life after which the broker asks, and after twice as many gives a connection up.
const HEARTBEAT_SECONDS: u16 = 10;

/// Where a broker is and who we are to it.
#[derive(Clone)]
pub struct Address {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Virtual host.
    pub virtual_host: String,
    /// User.
    pub user: String,
    /// The user's password.
    pub password: SecretString,
}

/// How long calls wait for a broker that is away.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, where there is none; all attempts and the waits between them.
    pub connect: Duration,
    /// For the broker's confirmation of a message, while none comes at all; then it is published again, within `connect`.
    pub confirm: Duration,
    /// For a connection when an event or a control message is to be sent: those are worth less than the sender's time.
    pub notice: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), confirm: Duration::from_secs(8), notice: Duration::from_secs(2) }
    }
}

/// A RabbitMQ broker. Clones share its connections.
#[derive(Clone)]
pub struct Rabbitmq {
    shared: Arc<Shared>,
}

struct Shared {
    /// The address as it may be shown.
    endpoint: String,
    patience: Patience,
    topology: Arc<Topology>,
    publishing: Line,
    consuming: Line,
    publishers: publish::Publishers,
    /// One listing, retrying or discarding of dead letters at a time in this process.
    dead_letters: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Rabbitmq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rabbitmq").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl Rabbitmq {
    /// Connects to the broker, waiting for it as `patience` says.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; at once where it refuses the user or the virtual host.
    pub async fn open(address: Address, patience: Patience) -> Result<Self> {
        // Programs that link two of rustls' providers have none by default. Somebody may have chosen before: theirs holds.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = shown(&address);
        let uri = uri(&address);
        let topology = Arc::new(Topology::default());
        let line = |name: &str| Line::new(uri.clone(), endpoint.clone(), name, topology.clone());
        let shared = Shared {
            publishing: line("publishing"),
            consuming: line("consuming"),
            publishers: publish::Publishers::default(),
            dead_letters: tokio::sync::Mutex::new(()),
            endpoint: endpoint.clone(),
            patience,
            topology: topology.clone(),
        };
        shared.consuming.connection(patience.connect).await?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

fn shown(address: &Address) -> String {
    let scheme = if address.tls { "amqps" } else { "amqp" };
    let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
    let virtual_host = address.virtual_host.strip_prefix('/').unwrap_or(&address.virtual_host);
    format!("{scheme}://{host}:{}/{virtual_host}", address.port)
}

fn uri(address: &Address) -> AMQPUri {
    AMQPUri {
        scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: address.user.clone(),
                password: address.password.expose_secret().to_owned(),
            },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.virtual_host.clone(),
        query: AMQPQueryString { heartbeat: Some(HEARTBEAT_SECONDS), ..AMQPQueryString::default() },
    }
}

#[async_trait]
impl Queue for Rabbitmq {
    async fn declare(&self, declaration: &Declaration) -> Result<()> {
        let channel = self.shared.consuming.channel(self.shared.patience.connect).await?;
        self.shared
            .topology
            .declare(&channel, declaration)
            .await
            .map_err(|failed| failed.of_declaration(&self.shared.endpoint, declaration))
    }

    async fn publish(&self, queue: &str, message: Message) -> Result<()> {
        self.publish_batch(queue, vec![message]).await?.into_iter().collect()
    }

    async fn publish_batch(&self, queue: &str, messages: Vec<Message>) -> Result<Vec<Result<()>>> {
        publish::batch(&self.shared, queue, messages).await
    }

    async fn consume(&self, queue: &str, prefetch: u16) -> Result<Box<dyn Consumer>> {
        Ok(Box::new(consumer::Receiver::start(&self.shared, queue, prefetch.max(1)).await?))
    }

    async fn depth(&self, queue: &str) -> Result<Depth> {
        let name = message::short(queue).ok_or_else(|| Error::UnknownQueue(queue.to_owned()))?;
        let channel = self.shared.consuming.channel(self.shared.patience.connect).await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(name, passive, FieldTable::default()).await;
        let found = found.map_err(|error| line::of_queue(&self.shared.endpoint, queue, &error))?;
        Ok(Depth { ready: u64::from(found.message_count()), unacknowledged: None })
    }

    async fn purge(&self, queue: &str) -> Result<u64> {
        let name = message::short(queue).ok_or_else(|| Error::UnknownQueue(queue.to_owned()))?;
        let channel = self.shared.consuming.channel(self.shared.patience.connect).await?;
        let purged = channel.queue_purge(name, QueuePurgeOptions::default()).await;
        purged.map(u64::from).map_err(|error| line::of_queue(&self.shared.endpoint, queue, &error))
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<DeadLetter>> {
        dead::list(&self.shared, limit).await
    }

    async fn retry_dead_letter(&self, id: &str) -> Result<()> {
        dead::settle(&self.shared, id, dead::Fate::Retry).await
    }

    async fn discard_dead_letter(&self, id: &str) -> Result<()> {
        dead::settle(&self.shared, id, dead::Fate::Discard).await
    }

    async fn publish_event(&self, topic: &str, payload: Bytes) -> Result<()> {
        publish::notice(&self.shared, topology::EVENTS, topic, &payload).await
    }

    async fn subscribe(&self, pattern: &str) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(subscription::Subscriber::start(&self.shared, topology::EVENTS, pattern).await?))
    }

    async fn broadcast(&self, payload: Bytes) -> Result<()> {
        publish::notice(&self.shared, topology::CONTROL, "", &payload).await
    }

    async fn listen(&self) -> Result<Box<dyn Subscription>> {
        Ok(Box::new(subscription::Subscriber::start(&self.shared, topology::CONTROL, "").await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, virtual_host: &str) -> Address {
        let (user, password) = ("me".to_owned(), "sesame".into());
        Address { tls: false, host: host.to_owned(), port: 1, virtual_host: virtual_host.to_owned(), user, password }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        assert_eq!(shown(&address("::1", "/")), "amqp://[::1]:1/");
        assert_eq!(shown(&address("broker", "fleet")), "amqp://broker:1/fleet");
    }

    #[tokio::test]
    async fn a_missing_broker_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let patience = Patience { connect: Duration::ZERO, ..Patience::default() };
        let error = Rabbitmq::open(Address { port: free, ..address("127.0.0.1", "/") }, patience).await.unwrap_err();
        assert!(
            matches!(&error, Error::Unreachable { endpoint, .. } if endpoint.contains(&free.to_string())),
            "{error}"
        );
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
}
