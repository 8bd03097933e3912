//! Stands where a program is built without the fleet's backends.

use std::sync::Arc;

use secrecy::SecretString;

use super::{Cache, CacheEndpoint, Error, Queue, QueueEndpoint, Store, StoreEndpoint};
use crate::{cache, queue, store};

/// Refuses.
pub(super) async fn queue(
    _endpoint: QueueEndpoint,
    settings: &Queue,
    _password: Option<SecretString>,
) -> Result<Arc<dyn queue::Queue>, Error> {
    Err(not_built("queue", &settings.endpoint))
}

/// Refuses.
pub(super) async fn store(
    _endpoint: StoreEndpoint,
    settings: &Store,
    _secret: Option<SecretString>,
) -> Result<Arc<dyn store::Store>, Error> {
    Err(not_built("store", &settings.endpoint))
}

/// Refuses.
pub(super) fn cache(
    _endpoint: CacheEndpoint,
    settings: &Cache,
    _password: Option<SecretString>,
) -> Result<Arc<dyn cache::Cache>, Error> {
    Err(not_built("cache", &settings.endpoint))
}

fn not_built(service: &'static str, endpoint: &str) -> Error {
    let cause =
        "this program is built without the fleet's backends (cargo feature `fleet`); use an embedded one".to_owned();
    Error::NotBuilt { service, endpoint: endpoint.to_owned(), cause }
}
