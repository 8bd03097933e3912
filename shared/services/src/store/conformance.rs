//! What every store must do. A backend's tests call [`store_conformance!`](crate::store_conformance).

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};

use super::{ByteStream, Error, Put, Store};

/// Makes a test of each case, on an empty store that the expression gives: `async { Arc<dyn Store> }`, evaluated for each
/// test.
#[macro_export]
macro_rules! store_conformance {
    ($store:expr) => {
        $crate::store_conformance!(@cases $store;
            gives_back_what_was_put, says_what_is_not_there, replaces_whole, creates_once, lets_one_of_a_race_win,
            lists_by_prefix, deletes, refuses_bad_keys, streams, keeps_nothing_of_a_broken_stream,
            never_mixes_versions,
        );
    };
    (@cases $store:expr; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::conformance::$case($store.await).await;
            }
        )*
    };
}

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// Content of several sizes comes back, with its length and digest.
pub async fn gives_back_what_was_put(store: Subject) {
    for (size, key) in [(0, "empty"), (1, "a/one"), (100, "a/b/c.json"), (3_000_001, "large ünïcode=1")] {
        let content = pattern(size, 7);
        let head = store.put(key, content.clone()).await.expect("put");
        assert_eq!(head.size_bytes, size as u64);
        assert_eq!(head.sha256, crate::sha256(&content));
        assert_eq!(store.head(key).await.expect("head"), Some(head));
        assert_eq!(store.get(key).await.expect("get"), content, "{key}");
    }
}

/// A missing object is said to be missing, also where keys below it exist.
pub async fn says_what_is_not_there(store: Subject) {
    store.put("a/b", Bytes::from_static(b"x")).await.expect("put");
    for key in ["nothing", "a", "a/c"] {
        assert!(matches!(store.get(key).await, Err(Error::NotFound(name)) if name == key), "get {key}");
        assert!(
            matches!(store.get_stream(key).await.err(), Some(Error::NotFound(name)) if name == key),
            "stream {key}"
        );
        assert_eq!(store.head(key).await.expect("head"), None, "{key}");
    }
}

/// A put replaces what was there.
pub async fn replaces_whole(store: Subject) {
    store.put("k", pattern(1000, 1)).await.expect("put");
    store.put("k", pattern(10, 2)).await.expect("put");
    assert_eq!(store.get("k").await.expect("get"), pattern(10, 2));
    assert_eq!(store.head("k").await.expect("head").expect("exists").size_bytes, 10);
}

/// The second creation changes nothing.
pub async fn creates_once(store: Subject) {
    assert_eq!(store.put_if_absent("d/done.json", pattern(5, 1)).await.expect("put"), Put::Created);
    assert_eq!(store.put_if_absent("d/done.json", pattern(5, 2)).await.expect("put"), Put::Exists);
    assert_eq!(store.get("d/done.json").await.expect("get"), pattern(5, 1));
    store.delete("d/done.json").await.expect("delete");
    assert_eq!(store.put_if_absent("d/done.json", pattern(5, 3)).await.expect("put"), Put::Created);
}

/// Of 16 creations at once one wins, and its content is there.
pub async fn lets_one_of_a_race_win(store: Subject) {
    for round in 0..20_u64 {
        let key = format!("race/{round}/done.json");
        let calls = (0..16_u64).map(|call| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move { store.put_if_absent(&key, pattern(2000, call)).await.expect("put") })
        });
        let puts: Vec<Put> = join_all(calls).await.into_iter().map(|put| put.expect("task")).collect();
        let winners: Vec<usize> = (0..16).filter(|&call| puts[call] == Put::Created).collect();
        assert_eq!(winners.len(), 1, "round {round}: {puts:?}");
        assert_eq!(store.get(&key).await.expect("get"), pattern(2000, winners[0] as u64));
    }
}

/// Prefixes may end anywhere; keys come sorted by their bytes.
pub async fn lists_by_prefix(store: Subject) {
    assert_eq!(store.list("").await.expect("list"), Vec::<String>::new());
    let keys = ["a-b/z", "a/1", "a/10", "a/2/x", "ab", "b/1"];
    for key in keys.iter().rev() {
        store.put(key, Bytes::from_static(b"x")).await.expect("put");
    }
    let cases: [(&str, &[&str]); 8] = [
        ("", &keys),
        ("a", &["a-b/z", "a/1", "a/10", "a/2/x", "ab"]),
        ("a/", &["a/1", "a/10", "a/2/x"]),
        ("a/1", &["a/1", "a/10"]),
        ("a/2", &["a/2/x"]),
        ("a/2/", &["a/2/x"]),
        ("a/1/", &[]),
        ("c/d", &[]),
    ];
    for (prefix, expected) in cases {
        assert_eq!(store.list(prefix).await.expect("list"), expected, "prefix {prefix:?}");
    }
}

/// Deleting removes; deleting nothing is no error.
pub async fn deletes(store: Subject) {
    store.put("a/b", Bytes::from_static(b"x")).await.expect("put");
    store.delete("a/b").await.expect("delete");
    store.delete("a/b").await.expect("delete again");
    store.delete("never/was").await.expect("delete nothing");
    assert!(matches!(store.get("a/b").await, Err(Error::NotFound(_))));
    assert_eq!(store.list("").await.expect("list"), Vec::<String>::new());
}

/// What could leave the store's place is refused by every method.
pub async fn refuses_bad_keys(store: Subject) {
    let long = "x".repeat(1025);
    for key in ["..", "../a", "a/../b", "/a", "a/", "a//b", "", ".hidden", "a/.b", "a\\b", "a\nb", "a\0b", &long] {
        let content = Bytes::from_static(b"x");
        assert!(matches!(store.get(key).await, Err(Error::Key { .. })), "get {key:?}");
        assert!(matches!(store.get_stream(key).await.err(), Some(Error::Key { .. })), "stream {key:?}");
        assert!(matches!(store.put(key, content.clone()).await, Err(Error::Key { .. })), "put {key:?}");
        assert!(matches!(store.put_if_absent(key, content).await, Err(Error::Key { .. })), "create {key:?}");
        assert!(matches!(store.put_stream(key, pieces(1)).await, Err(Error::Key { .. })), "stream to {key:?}");
        assert!(matches!(store.head(key).await, Err(Error::Key { .. })), "head {key:?}");
        assert!(matches!(store.delete(key).await, Err(Error::Key { .. })), "delete {key:?}");
    }
    for prefix in ["../", "/", "a//", ".partial"] {
        assert!(matches!(store.list(prefix).await, Err(Error::Key { .. })), "list {prefix:?}");
    }
}

/// Large objects travel in pieces, both ways.
pub async fn streams(store: Subject) {
    let head = store.put_stream("big", pieces(40)).await.expect("put");
    assert_eq!(head.size_bytes, 40 * 100_000);
    let whole = store.get("big").await.expect("get");
    assert_eq!(head.sha256, crate::sha256(&whole));
    let mut read = Vec::new();
    let mut most = 0;
    let mut stream = store.get_stream("big").await.expect("stream");
    while let Some(piece) = stream.try_next().await.expect("piece") {
        most = most.max(piece.len());
        read.extend_from_slice(&piece);
    }
    assert!(read == whole, "the pieces differ from the whole");
    assert!(most < whole.len(), "all came in one piece");
    // A reader that goes away early disturbs nobody.
    drop(store.get_stream("big").await.expect("stream"));
    store.put("none", Bytes::new()).await.expect("put");
    assert_eq!(store.get_stream("none").await.expect("stream").count().await, 0);
}

/// A stream that fails leaves what was there before.
pub async fn keeps_nothing_of_a_broken_stream(store: Subject) {
    let broken = || -> ByteStream {
        let pieces = vec![Ok(pattern(1000, 1)), Err(std::io::Error::other("the source broke"))];
        stream::iter(pieces).boxed()
    };
    let error = store.put_stream("k", broken()).await.expect_err("fails");
    assert!(matches!(&error, Error::Source { key, .. } if key == "k"), "{error}");
    assert_eq!(store.head("k").await.expect("head"), None);
    store.put("k", pattern(10, 2)).await.expect("put");
    store.put_stream("k", broken()).await.expect_err("fails");
    assert_eq!(store.get("k").await.expect("get"), pattern(10, 2));
    assert_eq!(store.list("").await.expect("list"), ["k"]);
}

/// Readers beside writers see one version whole, always.
pub async fn never_mixes_versions(store: Subject) {
    store.put("k", pattern(50_000, 0)).await.expect("put");
    let writers = (1..5_u64).map(|version| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..15 {
                store.put("k", pattern(50_000, version)).await.expect("put");
            }
        })
    });
    let readers = (0..3).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let versions: BTreeSet<Bytes> = (0..5).map(|version| pattern(50_000, version)).collect();
            for _ in 0..40 {
                assert!(versions.contains(&store.get("k").await.expect("get")), "a mixture");
            }
        })
    });
    for task in join_all(writers.chain(readers)).await {
        task.expect("task");
    }
}

fn pieces(count: u64) -> ByteStream {
    stream::iter((0..count).map(|number| Ok(pattern(100_000, number)))).boxed()
}

/// `size` bytes that depend on `version` throughout.
fn pattern(size: usize, version: u64) -> Bytes {
    (0..size as u64).map(|i| (i.wrapping_mul(31).wrapping_add(version * 17 + (i >> 8)) % 251) as u8).collect()
}
