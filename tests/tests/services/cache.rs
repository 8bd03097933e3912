use std::time::{Duration, Instant};

use bytes::Bytes;
use hiresmed_services::cache::Error;
use hiresmed_tests::{
    proxy::{Fault, Proxy},
    servers::Redis,
};

use crate::open_cache;

mod conformance {
    use super::{Redis, open_cache};

    hiresmed_services::cache_conformance!(
        async { open_cache(&Redis::shared().fresh()).await },
        flavor = "multi_thread",
        worker_threads = 2
    );
}

const LONG: Duration = Duration::from_secs(600);

fn is_away<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Backend { .. }))
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_kept_compressed() {
    let cache = open_cache(&Redis::shared().fresh()).await;
    let value = Bytes::from(vec![5; 10_000_000]);
    cache.put("large", value.clone(), LONG).await.unwrap();
    assert_eq!(cache.get("large").await.unwrap(), Some(value));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flushed_server_has_forgotten_and_works() {
    let redis = Redis::start();
    let cache = open_cache(&redis.settings(0)).await;
    cache.put("k", Bytes::from_static(b"x"), LONG).await.unwrap();
    let token = cache.try_lock("l", LONG).await.unwrap().unwrap();
    redis.flush();
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert!(!cache.renew("l", &token, LONG).await.unwrap(), "the lock is gone, and its holder is told");
    let other = cache.try_lock("l", LONG).await.unwrap().unwrap();
    assert!(!cache.unlock("l", &token).await.unwrap());
    assert!(cache.unlock("l", &other).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_costs_little_time_and_is_used_again_when_it_is_back() {
    let redis = Redis::start();
    let cache = open_cache(&redis.settings(0)).await;
    cache.put("k", Bytes::from_static(b"x"), LONG).await.unwrap();
    redis.kill();
    let started = Instant::now();
    for _ in 0..50 {
        assert!(is_away(&cache.get("k").await));
        assert!(is_away(&cache.try_lock("l", LONG).await));
    }
    assert!(started.elapsed() < Duration::from_secs(5), "a hundred calls took {:?}", started.elapsed());
    redis.restart();
    let back = Instant::now();
    while is_away(&cache.get("k").await) {
        assert!(back.elapsed() < Duration::from_secs(5), "the server is back and not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert!(cache.try_lock("l", LONG).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let redis = Redis::start();
    let cache = open_cache(&redis.settings(0)).await;
    cache.put("k", Bytes::from_static(b"x"), LONG).await.unwrap();
    redis.kill();
    redis.restart();
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_server_is_given_up() {
    let proxy = Proxy::start(Redis::shared().address());
    let mut settings = Redis::shared().fresh();
    settings.endpoint = settings.endpoint.replace(Redis::shared().address(), &proxy.address());
    let cache = open_cache(&settings).await;
    cache.put("k", Bytes::from_static(b"x"), LONG).await.unwrap();
    proxy.set(Fault::Silence);
    let started = Instant::now();
    assert!(is_away(&cache.get("k").await));
    assert!(is_away(&cache.get("k").await));
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    proxy.set(Fault::Pass);
    proxy.cut();
    let back = Instant::now();
    while is_away(&cache.get("k").await) {
        assert!(back.elapsed() < Duration::from_secs(5), "the server answers and is not used");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&b"x"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_an_error_and_not_shown() {
    let mut settings = Redis::shared().fresh();
    settings.password = Some("sesame".into());
    let error = open_cache(&settings).await.get("k").await.unwrap_err();
    assert!(!error.to_string().contains("sesame"), "{error}");
}
