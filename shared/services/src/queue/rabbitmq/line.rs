//! A connection that is opened again when it was lost.

use std::{sync::Arc, time::Duration};

use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, uri::AMQPUri};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::topology::Topology;
use crate::queue::{Error, Result, backoff};

/// The longest time for one attempt to connect and declare.
const ATTEMPT: Duration = Duration::from_secs(10);

/// The first and the longest wait between attempts.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A connection and how to make it.
pub(super) struct Line {
    uri: AMQPUri,
    endpoint: String,
    name: String,
    topology: Arc<Topology>,
    /// Held while connecting: whoever needs the connection then waits for the same attempt.
    open: Mutex<Option<Arc<Connection>>>,
}

impl Line {
    /// A line that is not connected yet.
    pub(super) fn new(uri: AMQPUri, endpoint: String, name: &str, topology: Arc<Topology>) -> Self {
        Self { uri, endpoint, name: format!("hiresmed {name}"), topology, open: Mutex::new(None) }
    }

    /// The connection; where it was lost, a new one on which everything is declared. Tries for as long as `patience` says,
    /// and at least once.
    pub(super) async fn connection(&self, patience: Duration) -> Result<Arc<Connection>> {
        let deadline = Instant::now() + patience;
        let Ok(mut open) = timeout(patience.max(ATTEMPT), self.open.lock()).await else {
            return Err(unreachable(&self.endpoint, "others wait for the connection already"));
        };
        if let Some(connection) = open.as_ref().filter(|connection| connection.status().connected()) {
            return Ok(connection.clone());
        }
        *open = None;
        for attempt in 0.. {
            let connected = timeout(ATTEMPT, self.connect()).await;
            let cause = match connected {
                Ok(Ok(connection)) => return Ok(open.insert(Arc::new(connection)).clone()),
                // Who is refused now is refused in a second too.
                Ok(Err(error)) if is_refusal(&error) => return Err(unreachable(&self.endpoint, error)),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", ATTEMPT.as_secs()),
            };
            let wait = backoff(attempt, WAITS.0, WAITS.1);
            if Instant::now() + wait >= deadline {
                return Err(unreachable(&self.endpoint, cause));
            }
            tracing::debug!(endpoint = self.endpoint, attempt, cause, "the broker is away; trying again");
            sleep(wait).await;
        }
        Err(unreachable(&self.endpoint, "no attempt was made"))
    }

    async fn connect(&self) -> lapin::Result<Connection> {
        let name = self.name.as_str().into();
        let properties = ConnectionProperties::default().with_connection_name(name);
        let connection = Connection::connect_uri(self.uri.clone(), properties).await?;
        self.topology.restore(&connection).await?;
        Ok(connection)
    }

    /// A channel of its own, on a connection as [`Line::connection`] gives it. Errors of the broker's close a channel, so
    /// nothing shares one. The channel keeps the connection open.
    pub(super) async fn channel(&self, patience: Duration) -> Result<Channel> {
        let connection = self.connection(patience).await?;
        match timeout(ATTEMPT, connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            // It was lost just now; its status says so from here on.
            Ok(Err(_)) if !connection.status().connected() => {
                let connection = self.connection(patience).await?;
                self.answer(connection.create_channel()).await?.map_err(|error| unreachable(&self.endpoint, error))
            }
            Ok(Err(error)) => Err(unreachable(&self.endpoint, error)),
            Err(_) => Err(self.silent().await),
        }
    }

    /// What the broker answers. A connection that breaks at the wrong moment leaves a question without an answer for ever: then
    /// the connection is given up.
    pub(super) async fn answer<T>(&self, question: impl Future<Output = lapin::Result<T>>) -> Result<lapin::Result<T>> {
        match timeout(ATTEMPT, question).await {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.silent().await),
        }
    }

    /// Gives the connection up, whatever its status says.
    async fn silent(&self) -> Error {
        if let Ok(mut open) = timeout(ATTEMPT, self.open.lock()).await {
            *open = None;
        }
        unreachable(&self.endpoint, format!("no answer within {} s", ATTEMPT.as_secs()))
    }
}

/// Whether the broker knows us and does not want us.
fn is_refusal(error: &lapin::Error) -> bool {
    // 403 ACCESS_REFUSED, 530 NOT_ALLOWED (virtual host).
    matches!(error.kind(), ErrorKind::ProtocolError(refusal) if [403, 530].contains(&refusal.get_id()))
}

/// The number of the broker's answer, where the error is one.
pub(super) fn reply(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(answer) => Some(answer.get_id()),
        _ => None,
    }
}

/// An error of the connection.
pub(super) fn unreachable(endpoint: &str, cause: impl ToString) -> Error {
    Error::Unreachable { endpoint: endpoint.to_owned(), cause: cause.to_string() }
}

/// An error of an operation on `queue`: 404 says that there is no such queue.
pub(super) fn of_queue(endpoint: &str, queue: &str, error: &lapin::Error) -> Error {
    match reply(error) {
        Some(404) => Error::UnknownQueue(queue.to_owned()),
        Some(_) => Error::Backend { endpoint: endpoint.to_owned(), cause: error.to_string() },
        None => unreachable(endpoint, error),
    }
}
