use futures::FutureExt;

use super::*;
use crate::queue::conformance::Broker;

/// Connects to one file in a folder that stays as long as the process.
fn fresh() -> Broker {
    let file = tempfile::tempdir().unwrap().keep().join("queue.sqlite");
    Box::new(move || {
        let file = file.clone();
        async move { Arc::new(Sqlite::open(&file).unwrap()) as Arc<dyn Queue> }.boxed()
    })
}

crate::queue_conformance!(fresh());

#[tokio::test]
async fn a_consumer_whose_lock_file_vanished_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.sqlite");
    let queue = Sqlite::open(&file).unwrap();
    queue.declare(&Declaration::new("q")).await.unwrap();
    let mut consumer = queue.consume("q", 1).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("queue.sqlite.consumers")).unwrap();
    queue.depth("q").await.unwrap();
    queue.publish("q", Message::new("m", "x")).await.unwrap();
    let error = consumer.next().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(queue.depth("q").await.unwrap(), Depth { ready: 1, unacknowledged: Some(0) });
}

#[tokio::test]
async fn old_notices_are_dropped_and_their_numbers_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Sqlite::open(folder.path().join("queue.sqlite")).unwrap();
    let mut slow = queue.subscribe("#").await.unwrap();
    let shared = queue.shared.clone();
    shared
        .volatile
        .call(|db| (0..25_600).try_for_each(|number| notices::publish(db, Some("t"), number.to_string().as_bytes())))
        .await
        .unwrap();
    let first: u32 = String::from_utf8(slow.next().await.unwrap().payload.to_vec()).unwrap().parse().unwrap();
    assert_eq!(first, 5600, "the slowest lose the oldest");
    let mut late = queue.subscribe("#").await.unwrap();
    queue.publish_event("t", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(late.next().await.unwrap().payload, "new");
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.sqlite");
    std::fs::write(&file, "this is no database, and long enough to be seen as none".repeat(50)).unwrap();
    let error = Sqlite::open(&file).err().unwrap().to_string();
    assert!(error.contains("queue.sqlite") && error.contains("move it away"), "{error}");

    let later = folder.path().join("later.sqlite");
    drop(Sqlite::open(&later).unwrap());
    rusqlite::Connection::open(&later).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Sqlite::open(&later).err().unwrap().to_string();
    assert!(error.contains("version 99"), "{error}");
}
