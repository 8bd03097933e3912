//! What every cache must do. A backend's tests call [`cache_conformance!`](crate::cache_conformance).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::{Cache, Token};

/// Makes a test of each case, on an empty cache that the expression gives: `async { Arc<dyn Cache> }`, evaluated for each
/// test. `attribute` stands for the arguments of `tokio::test`, for example `start_paused = true` for backends that live by
/// tokio's clock.
#[macro_export]
macro_rules! cache_conformance {
    ($cache:expr, $($attribute:tt)*) => {
        $crate::cache_conformance!(@cases $cache, ($($attribute)*);
            keeps_values, forgets_after_their_time, deletes, locks_once, unlocks_by_token_only, locks_expire,
            renews_by_token_only, lets_one_of_a_race_lock,
        );
    };
    (@cases $cache:expr, $attribute:tt; $($case:ident,)*) => {
        $( $crate::cache_conformance!(@case $cache, $attribute; $case); )*
    };
    (@case $cache:expr, ($($attribute:tt)*); $case:ident) => {
        #[tokio::test($($attribute)*)]
        async fn $case() {
            $crate::cache::conformance::$case($cache.await).await;
        }
    };
}

/// A cache under test.
pub type Subject = Arc<dyn Cache>;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(150);

/// A value comes back, and a second one replaces it.
pub async fn keeps_values(cache: Subject) {
    assert_eq!(cache.get("k").await.expect("get"), None);
    for value in [&b"one"[..], b"", b"\0\xffbinary"] {
        cache.put("k", Bytes::from_static(value), LONG).await.expect("put");
        assert_eq!(cache.get("k").await.expect("get").as_deref(), Some(value));
    }
    assert_eq!(cache.get("other").await.expect("get"), None);
}

/// A value is gone after its time, and a new put starts the time again.
pub async fn forgets_after_their_time(cache: Subject) {
    cache.put("short", Bytes::from_static(b"x"), SHORT).await.expect("put");
    cache.put("long", Bytes::from_static(b"x"), LONG).await.expect("put");
    cache.put("again", Bytes::from_static(b"x"), SHORT).await.expect("put");
    cache.put("again", Bytes::from_static(b"y"), LONG).await.expect("put");
    assert!(cache.get("short").await.expect("get").is_some());
    wait_until(async || cache.get("short").await.expect("get").is_none()).await;
    assert!(cache.get("long").await.expect("get").is_some());
    assert_eq!(cache.get("again").await.expect("get").as_deref(), Some(&b"y"[..]));
}

/// A deleted value is gone; deleting nothing is no error.
pub async fn deletes(cache: Subject) {
    cache.put("k", Bytes::from_static(b"x"), LONG).await.expect("put");
    cache.delete("k").await.expect("delete");
    cache.delete("k").await.expect("delete again");
    assert_eq!(cache.get("k").await.expect("get"), None);
}

/// A lock is held once; another name is another lock, and not a value.
pub async fn locks_once(cache: Subject) {
    assert!(cache.try_lock("a", LONG).await.expect("lock").is_some());
    assert!(cache.try_lock("a", LONG).await.expect("lock").is_none());
    assert!(cache.try_lock("b", LONG).await.expect("lock").is_some());
    assert_eq!(cache.get("a").await.expect("get"), None);
}

/// Only the token opens, and only once.
pub async fn unlocks_by_token_only(cache: Subject) {
    let token = cache.try_lock("a", LONG).await.expect("lock").expect("free");
    assert!(!cache.unlock("a", &Token::new("forged")).await.expect("unlock"));
    assert!(cache.try_lock("a", LONG).await.expect("lock").is_none());
    assert!(cache.unlock("a", &token).await.expect("unlock"));
    assert!(!cache.unlock("a", &token).await.expect("unlock"));
    let second = cache.try_lock("a", LONG).await.expect("lock").expect("free");
    assert_ne!(second, token);
    assert!(!cache.unlock("a", &token).await.expect("an old token must not open a later lock"));
    assert!(cache.unlock("a", &second).await.expect("unlock"));
}

/// A lock whose holder is silent becomes free, and then is no longer the holder's.
pub async fn locks_expire(cache: Subject) {
    let old = cache.try_lock("a", SHORT).await.expect("lock").expect("free");
    let mut new = None;
    wait_until(async || {
        new = cache.try_lock("a", LONG).await.expect("lock");
        new.is_some()
    })
    .await;
    assert!(!cache.renew("a", &old, LONG).await.expect("renew"));
    assert!(!cache.unlock("a", &old).await.expect("unlock"));
    assert!(cache.unlock("a", &new.expect("waited for it")).await.expect("unlock"));
}

/// Renewing keeps a lock beyond its first time.
pub async fn renews_by_token_only(cache: Subject) {
    let token = cache.try_lock("a", SHORT).await.expect("lock").expect("free");
    assert!(!cache.renew("a", &Token::new("forged"), LONG).await.expect("renew"));
    assert!(!cache.renew("b", &token, LONG).await.expect("renew"));
    assert!(cache.renew("a", &token, LONG).await.expect("renew"));
    sleep(SHORT * 2).await;
    assert!(cache.try_lock("a", LONG).await.expect("lock").is_none());
}

/// Of 16 that try at once one gets the lock.
pub async fn lets_one_of_a_race_lock(cache: Subject) {
    for round in 0..20 {
        let name = format!("race-{round}");
        let calls = (0..16).map(|_| {
            let (cache, name) = (cache.clone(), name.clone());
            tokio::spawn(async move { cache.try_lock(&name, LONG).await.expect("lock").is_some() })
        });
        let winners = join_all(calls).await.into_iter().filter(|won| *won.as_ref().expect("task")).count();
        assert_eq!(winners, 1, "round {round}");
    }
}

async fn wait_until(mut happened: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !happened().await {
        assert!(started.elapsed() < SHORT * 40, "it did not happen in time");
        sleep(Duration::from_millis(10)).await;
    }
}
