//! Which backends to use and where they are: configuration as values, and the way from it to the three services.
//!
//! An endpoint is a short text that may be shown and logged. Names and passwords have fields of their own, a password
//! also as the path of a file that holds it, as containers are given their secrets.

mod endpoint;
mod file;
#[cfg_attr(not(feature = "fleet"), path = "settings/no_fleet.rs")]
mod fleet;

use std::{path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

pub use self::{
    endpoint::{CacheEndpoint, QueueEndpoint, StoreEndpoint},
    file::{FileError, read},
};
use crate::{cache, queue, store};

/// Why the services could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An endpoint's text has no meaning.
    #[error("{service} endpoint `{endpoint}`: {cause}; write {expected}")]
    Endpoint {
        /// `queue`, `store` or `cache`.
        service: &'static str,
        /// The refused text.
        endpoint: String,
        /// What is wrong with it.
        cause: String,
        /// The forms that are understood.
        expected: &'static str,
    },
    /// A field contradicts another, or one is missing.
    #[error("setting `{field}`: {cause}")]
    Field {
        /// The field, as `queue.password`.
        field: &'static str,
        /// What is wrong with it, and what to do.
        cause: String,
    },
    /// This program has no such backend.
    #[error("{service} endpoint `{endpoint}`: {cause}")]
    NotBuilt {
        /// `queue`, `store` or `cache`.
        service: &'static str,
        /// The endpoint.
        endpoint: String,
        /// What is not built in, and what to do.
        cause: String,
    },
    /// The file of a secret cannot be read.
    #[error("setting `{field}`: cannot read the secret in {path}: {cause}; check the path and its permissions", path = path.display())]
    Secret {
        /// The field, as `queue.password_file`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] queue::Error),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The cache cannot be opened.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

/// The three services' settings. The defaults are the embedded backends in the folder `state`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Work in flight.
    pub queue: Queue,
    /// Objects.
    pub store: Store,
    /// Values that may vanish.
    pub cache: Cache,
}

/// Where the queue is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// `sqlite:PATH`, `amqp://HOST[:PORT][/VHOST]` or `amqps://…` (TLS).
    pub endpoint: String,
    /// The broker's user. RabbitMQ's own `guest` may connect from its own machine only.
    pub user: String,
    /// The user's password; `guest` where neither it nor its file is given.
    pub password: Option<SecretString>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
}

/// Where the store is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `directory:PATH` or `s3://BUCKET[/PREFIX]`.
    pub endpoint: String,
    /// The address of an S3 server that is not AWS, as `https://objects.example.org:9000`.
    pub url: Option<String>,
    /// The address that others reach it by, for links: where it differs from `url`.
    pub public_url: Option<String>,
    /// The S3 region. Where it is not given: with `url` the environment's `AWS_REGION` or `us-east-1`, else the usual AWS
    /// chain.
    pub region: Option<String>,
    /// Whether the bucket is a part of the path and not of the host name: most servers that are not AWS need it.
    pub path_style: bool,
    /// The S3 key; by the usual AWS chain (environment, profile, role) where it is not given.
    pub access_key_id: Option<String>,
    /// The S3 secret that belongs to `access_key_id`.
    pub secret_access_key: Option<SecretString>,
    /// A file that holds the S3 secret.
    pub secret_access_key_file: Option<PathBuf>,
}

/// Where the cache is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cache {
    /// `memory:BYTES`, `redis://HOST[:PORT][/DATABASE]`, `rediss://…` (TLS) or `none`.
    pub endpoint: String,
    /// The user, where the server has users.
    pub user: Option<String>,
    /// The password, where the server asks for one.
    pub password: Option<SecretString>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
}

impl Default for Queue {
    fn default() -> Self {
        let endpoint = "sqlite:state/queue.sqlite".to_owned();
        Self { endpoint, user: "guest".to_owned(), password: None, password_file: None }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            endpoint: "directory:state/store".to_owned(),
            url: None,
            public_url: None,
            region: None,
            path_style: false,
            access_key_id: None,
            secret_access_key: None,
            secret_access_key_file: None,
        }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { endpoint: "memory:268435456".to_owned(), user: None, password: None, password_file: None }
    }
}

impl Settings {
    /// Checks what can be checked without connecting to anything or reading a file.
    ///
    /// # Errors
    /// [`Error::Endpoint`], [`Error::Field`].
    pub fn check(&self) -> Result<(), Error> {
        QueueEndpoint::parse(&self.queue.endpoint)?;
        StoreEndpoint::parse(&self.store.endpoint)?;
        CacheEndpoint::parse(&self.cache.endpoint)?;
        let store = &self.store;
        let secret = store.secret_access_key.is_some() || store.secret_access_key_file.is_some();
        if store.access_key_id.is_some() != secret {
            let cause = "give it and the secret both, or neither for the usual AWS chain".to_owned();
            return Err(Error::Field { field: "store.access_key_id", cause });
        }
        one_of("queue.password", &self.queue.password, &self.queue.password_file)?;
        one_of("store.secret_access_key", &store.secret_access_key, &store.secret_access_key_file)?;
        one_of("cache.password", &self.cache.password, &self.cache.password_file)
    }
}

fn one_of(field: &'static str, value: &Option<SecretString>, file: &Option<PathBuf>) -> Result<(), Error> {
    match (value, file) {
        (Some(_), Some(_)) => {
            Err(Error::Field { field, cause: "it is given as text and as a file; give one of them".to_owned() })
        }
        _ => Ok(()),
    }
}

/// A secret that is given as text or by its file. A line's end at the file's end is not part of it.
fn secret(
    field: &'static str,
    value: &Option<SecretString>,
    file: &Option<PathBuf>,
) -> Result<Option<SecretString>, Error> {
    let Some(path) = file else { return Ok(value.clone()) };
    let text = std::fs::read_to_string(path).map(SecretString::from);
    let text = text.map_err(|error| Error::Secret { field, path: path.clone(), cause: error.to_string() })?;
    Ok(Some(SecretString::from(text.expose_secret().trim_end_matches(['\r', '\n']))))
}

/// The three services. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Work in flight.
    pub queue: Arc<dyn queue::Queue>,
    /// Objects.
    pub store: Arc<dyn store::Store>,
    /// Values that may vanish.
    pub cache: Arc<dyn cache::Cache>,
}

/// Opens the services. Of those on other machines only the queue is connected to: the store and the cache show at their
/// first use whether they are there.
///
/// # Errors
/// As [`Settings::check`]; [`Error::Secret`]; [`Error::NotBuilt`]; and where a service cannot be opened.
pub async fn connect(settings: &Settings) -> Result<Services, Error> {
    settings.check()?;
    // The queue last: it is the one that waits.
    let store = open_store(&settings.store).await?;
    let cache = open_cache(&settings.cache)?;
    let queue = open_queue(&settings.queue).await?;
    Ok(Services { queue, store, cache })
}

async fn open_queue(settings: &Queue) -> Result<Arc<dyn queue::Queue>, Error> {
    let password = secret("queue.password_file", &settings.password, &settings.password_file)?;
    match QueueEndpoint::parse(&settings.endpoint)? {
        QueueEndpoint::Sqlite(path) => Ok(Arc::new(queue::Sqlite::open(path)?)),
        amqp @ QueueEndpoint::Amqp { .. } => fleet::queue(amqp, settings, password).await,
    }
}

/// Opens the store alone, for a program that needs nothing else.
///
/// # Errors
/// As [`connect`].
pub async fn open_store(settings: &Store) -> Result<Arc<dyn store::Store>, Error> {
    let file = &settings.secret_access_key_file;
    let secret = secret("store.secret_access_key_file", &settings.secret_access_key, file)?;
    match StoreEndpoint::parse(&settings.endpoint)? {
        StoreEndpoint::Directory(path) => Ok(Arc::new(store::Directory::open(path)?)),
        s3 @ StoreEndpoint::S3 { .. } => fleet::store(s3, settings, secret).await,
    }
}

fn open_cache(settings: &Cache) -> Result<Arc<dyn cache::Cache>, Error> {
    let password = secret("cache.password_file", &settings.password, &settings.password_file)?;
    match CacheEndpoint::parse(&settings.endpoint)? {
        CacheEndpoint::Memory { most_bytes } => Ok(Arc::new(cache::Memory::new(most_bytes))),
        CacheEndpoint::Nothing => Ok(Arc::new(cache::Nothing)),
        redis @ CacheEndpoint::Redis { .. } => fleet::cache(redis, settings, password),
    }
}

#[cfg(test)]
mod tests;
