//! From settings to the fleet's backends.

use std::sync::Arc;

use secrecy::SecretString;

use super::{Cache, CacheEndpoint, Error, Queue, QueueEndpoint, Store, StoreEndpoint};
use crate::{cache, queue, store};

/// RabbitMQ.
pub(super) async fn queue(
    endpoint: QueueEndpoint,
    settings: &Queue,
    password: Option<SecretString>,
) -> Result<Arc<dyn queue::Queue>, Error> {
    let QueueEndpoint::Amqp { tls, host, port, virtual_host } = endpoint else {
        return Err(other("queue", &settings.endpoint));
    };
    let (user, password) = (settings.user.clone(), password.unwrap_or_else(|| "guest".into()));
    let address = queue::Address { tls, host, port, virtual_host, user, password };
    Ok(Arc::new(queue::Rabbitmq::open(address, queue::Patience::default()).await?))
}

/// S3.
pub(super) async fn store(
    endpoint: StoreEndpoint,
    settings: &Store,
    secret: Option<SecretString>,
) -> Result<Arc<dyn store::Store>, Error> {
    let StoreEndpoint::S3 { bucket, prefix } = endpoint else { return Err(other("store", &settings.endpoint)) };
    let address = store::Address {
        bucket,
        prefix,
        url: settings.url.clone(),
        public_url: settings.public_url.clone(),
        region: settings.region.clone(),
        path_style: settings.path_style,
        credentials: settings.access_key_id.clone().zip(secret),
    };
    Ok(Arc::new(store::S3::open(&address).await))
}

/// Redis.
pub(super) fn cache(
    endpoint: CacheEndpoint,
    settings: &Cache,
    password: Option<SecretString>,
) -> Result<Arc<dyn cache::Cache>, Error> {
    let CacheEndpoint::Redis { tls, host, port, database } = endpoint else {
        return Err(other("cache", &settings.endpoint));
    };
    let address = cache::Address { tls, host, port, database, user: settings.user.clone(), password };
    Ok(Arc::new(cache::Redis::new(&address)?))
}

fn other(service: &'static str, endpoint: &str) -> Error {
    Error::NotBuilt { service, endpoint: endpoint.to_owned(), cause: "it is none of the fleet's backends".to_owned() }
}
