//! The fleet's backends on real servers: the conformance suites, and what only servers do: die, hang, come back empty.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

mod cache;
mod queue;
mod store;

use std::sync::Arc;

use hiresmed_services::{Services, Settings, connect, settings};

/// Settings with embedded backends where a test needs none of its own.
fn embedded() -> Settings {
    let folder = tempfile::tempdir().unwrap().keep();
    let mut settings = Settings::default();
    settings.queue.endpoint = format!("sqlite:{}", folder.join("queue.sqlite").display());
    settings.store.endpoint = format!("directory:{}", folder.join("store").display());
    settings.cache.endpoint = "none".to_owned();
    settings
}

async fn open_queue(queue: &settings::Queue) -> Arc<dyn hiresmed_services::queue::Queue> {
    let Services { queue, .. } = connect(&Settings { queue: queue.clone(), ..embedded() }).await.unwrap();
    queue
}

async fn open_store(store: &settings::Store) -> Arc<dyn hiresmed_services::store::Store> {
    let Services { store, .. } = connect(&Settings { store: store.clone(), ..embedded() }).await.unwrap();
    store
}

async fn open_cache(cache: &settings::Cache) -> Arc<dyn hiresmed_services::cache::Cache> {
    let Services { cache, .. } = connect(&Settings { cache: cache.clone(), ..embedded() }).await.unwrap();
    cache
}
