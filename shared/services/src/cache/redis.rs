//! A cache on a Redis server, for a fleet.
//!
//! One connection that many tasks share. It is opened at the first use and after it was lost; while the server is away a
//! call fails within a second, and for a moment after that at once, so that callers lose no time by asking. Commands that
//! fail with the connection are sent once more on a new one: each is written so that doing it twice is as good as once.
//!
//! Values are kept compressed (zstd, RFC 8878) behind one byte that says so, under `hiresmed:value:{key}`; locks under
//! `hiresmed:lock:{name}` hold their token. Comparing a token and acting on it is one script, so nothing comes between.

mod compression;

use std::time::Duration;

use ::redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    aio::MultiplexedConnection,
};
use async_trait::async_trait;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use super::{Cache, Error, Result, Token};

/// The longest time to connect.
const CONNECT: Duration = Duration::from_secs(1);

/// The longest time for an answer; values of many megabytes travel in it.
const ANSWER: Duration = Duration::from_secs(5);

/// How long after a failure to connect nobody tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// Compressed values above this are not kept: Redis serves nobody else while it reads one.
const MOST_BYTES: usize = 64 << 20;

/// Takes the lock, also when it is ours already: the command may have been sent twice.
const LOCK: &str = "local holder = redis.call('GET', KEYS[1])
    if holder and holder ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1";

const RENEW: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

const UNLOCK: &str = "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    return redis.call('DEL', KEYS[1])";

/// Where a server is and who we are to it.
#[derive(Clone)]
pub struct Address {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The number of the database.
    pub database: i64,
    /// User, where the server has users.
    pub user: Option<String>,
    /// Password, where the server asks for one.
    pub password: Option<SecretString>,
}

/// A cache on a Redis server.
pub struct Redis {
    client: Client,
    endpoint: String,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<MultiplexedConnection>,
    /// Counts the connections, so that a late failure of an old one does not end its successor.
    number: u64,
    /// Why the last attempt to connect failed, and until when nobody tries again.
    failure: Option<(Instant, String)>,
}

impl Redis {
    /// The cache at `address`. Does not connect: the first use does.
    ///
    /// # Errors
    /// [`Error::Backend`] where the address has no meaning.
    pub fn new(address: &Address) -> Result<Self> {
        let scheme = if address.tls { "rediss" } else { "redis" };
        let host = if address.host.contains(':') { format!("[{}]", address.host) } else { address.host.clone() };
        let endpoint = format!("{scheme}://{host}:{}/{}", address.port, address.database);
        let (host, port) = (address.host.clone(), address.port);
        let place = if address.tls {
            // Programs that link two of rustls' providers have none by default. Somebody may have chosen before.
            let _ = rustls::crypto::ring::default_provider().install_default();
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let mut login = RedisConnectionInfo::default().set_db(address.database);
        if let Some(user) = &address.user {
            login = login.set_username(user);
        }
        if let Some(password) = &address.password {
            login = login.set_password(password.expose_secret());
        }
        let client = place.into_connection_info().and_then(|info| Client::open(info.set_redis_settings(login)));
        let client = client.map_err(|error| Error::Backend { endpoint: endpoint.clone(), cause: error.to_string() })?;
        Ok(Self { client, endpoint, link: Mutex::default() })
    }

    fn failed(&self, cause: impl ToString) -> Error {
        Error::Backend { endpoint: self.endpoint.clone(), cause: cause.to_string() }
    }

    /// The connection and its number.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64)> {
        // Whoever connects holds it for at most `CONNECT`.
        let mut link = self.link.lock().await;
        if let Some(connection) = &link.connection {
            return Ok((connection.clone(), link.number));
        }
        if let Some((until, cause)) = &link.failure
            && Instant::now() < *until
        {
            return Err(self.failed(format!("{cause} (a moment ago)")));
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let connected = timeout(CONNECT, self.client.get_multiplexed_async_connection_with_config(&config)).await;
        let cause = match connected {
            Ok(Ok(connection)) => {
                link.number += 1;
                link.failure = None;
                link.connection = Some(connection.clone());
                return Ok((connection, link.number));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} ms", CONNECT.as_millis()),
        };
        link.failure = Some((Instant::now() + PAUSE, cause.clone()));
        Err(self.failed(cause))
    }

    /// Forgets the connection `number`, which failed.
    async fn disconnect(&self, number: u64) {
        let mut link = self.link.lock().await;
        if link.number == number {
            link.connection = None;
        }
    }

    /// Sends a command; once more where the connection turned out to be dead.
    async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let mut again = true;
        loop {
            let (mut connection, number) = self.connection().await?;
            let error = match command.query_async(&mut connection).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let broken = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
            if broken || error.is_timeout() {
                self.disconnect(number).await;
                // A server that does not answer is not asked twice: that would take twice as long.
                if again && !error.is_timeout() {
                    again = false;
                    continue;
                }
            }
            return Err(self.failed(error));
        }
    }

    /// Runs a script on a lock. They are short: sending one costs less than asking whether the server still has it.
    async fn script(&self, script: &str, name: &str, token: &Token, time_to_live: Duration) -> Result<bool> {
        let mut eval = Cmd::new();
        eval.arg("EVAL").arg(script).arg(1).arg(lock_key(name)).arg(token.as_str()).arg(millis(time_to_live));
        self.command(&eval).await
    }
}

fn value_key(key: &str) -> String {
    format!("hiresmed:value:{key}")
}

fn lock_key(name: &str) -> String {
    format!("hiresmed:lock:{name}")
}

/// Redis counts in milliseconds and refuses 0.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, i64::MAX as u64 / 2)
}

#[async_trait]
impl Cache for Redis {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let kept: Option<Vec<u8>> = self.command(Cmd::new().arg("GET").arg(value_key(key))).await?;
        let Some(kept) = kept else { return Ok(None) };
        // What cannot be read was written by another version, or damaged: as good as absent.
        compression::expand(kept).await.map_err(|stopped| self.failed(stopped))
    }

    async fn put(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        let compressed = compression::compress(value).await.map_err(|stopped| self.failed(stopped))?;
        if compressed.len() > MOST_BYTES {
            return Ok(());
        }
        let mut set = Cmd::new();
        set.arg("SET").arg(value_key(key)).arg(&compressed[..]).arg("PX").arg(millis(time_to_live));
        self.command(&set).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.command(Cmd::new().arg("DEL").arg(value_key(key))).await
    }

    async fn try_lock(&self, name: &str, time_to_live: Duration) -> Result<Option<Token>> {
        let token = Token::new(crate::nonce());
        let taken = self.script(LOCK, name, &token, time_to_live).await?;
        Ok(taken.then_some(token))
    }

    async fn renew(&self, name: &str, token: &Token, time_to_live: Duration) -> Result<bool> {
        self.script(RENEW, name, token, time_to_live).await
    }

    async fn unlock(&self, name: &str, token: &Token) -> Result<bool> {
        self.script(UNLOCK, name, token, Duration::ZERO).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_absent_server_is_named_and_costs_no_time_twice() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (user, password) = (None, Some("sesame".into()));
        let address = Address { tls: false, host: "127.0.0.1".to_owned(), port, database: 0, user, password };
        let cache = Redis::new(&address).unwrap();
        let first = cache.get("k").await.unwrap_err().to_string();
        let second = cache.try_lock("k", PAUSE).await.unwrap_err().to_string();
        assert!(first.contains(&port.to_string()) && !first.contains("sesame"), "{first}");
        assert!(second.contains("a moment ago"), "{second}");
    }
}
