use std::sync::Arc;

use super::*;

crate::cache_conformance!(async { Arc::new(Memory::new(1 << 20)) as Arc<dyn Cache> }, start_paused = true);

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_least_recently_used_values_make_room() {
    let cache = Memory::new(3 * 11);
    let value = || Bytes::from_static(b"0123456789");
    for key in ["a", "b", "c"] {
        cache.put(key, value(), LONG).await.unwrap();
    }
    assert!(cache.get("a").await.unwrap().is_some());
    cache.put("d", value(), LONG).await.unwrap();
    assert_eq!(cache.get("b").await.unwrap(), None, "b was used least recently");
    for key in ["a", "c", "d"] {
        assert!(cache.get(key).await.unwrap().is_some(), "{key}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_displaces_nothing() {
    let cache = Memory::new(100);
    cache.put("a", Bytes::from_static(b"x"), LONG).await.unwrap();
    cache.put("b", Bytes::from(vec![0; 100]), LONG).await.unwrap();
    assert_eq!(cache.get("b").await.unwrap(), None);
    assert!(cache.get("a").await.unwrap().is_some());
    assert_eq!(cache.content().used_bytes, 2);
}

#[tokio::test]
async fn the_account_of_bytes_stays_true() {
    let cache = Memory::new(1000);
    for round in 0..500_usize {
        let key = format!("k{}", round % 37);
        cache.put(&key, Bytes::from(vec![0; round % 90]), LONG).await.unwrap();
        if round % 5 == 0 {
            cache.delete(&format!("k{}", round % 11)).await.unwrap();
        }
        let content = cache.content();
        let counted: usize = content.values.iter().map(|(key, value)| key.len() + value.bytes.len()).sum();
        assert_eq!(content.used_bytes, counted);
        assert_eq!(content.order.len(), content.values.len());
        assert!(counted <= 1000);
    }
}
