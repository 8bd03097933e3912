use super::*;

/// A store in a folder that stays as long as the process.
fn fresh() -> Directory {
    Directory::open(tempfile::tempdir().unwrap().keep()).unwrap()
}

crate::store_conformance!(async { Arc::new(fresh()) as Arc<dyn Store> });

#[tokio::test]
async fn damage_is_found_and_named() {
    let store = fresh();
    store.put("a/b", Bytes::from(vec![5; 10_000])).await.unwrap();
    let path = store.root().join("a/b");
    let good = fs::read(&path).unwrap();

    let mut flipped = good.clone();
    flipped[77] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let error = store.get("a/b").await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { key, .. } if key == "a/b"), "{error}");
    let pieces: Vec<_> = store.get_stream("a/b").await.unwrap().collect().await;
    let last = pieces.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(last.contains("`a/b` is damaged"), "{last}");

    for length in [0, 1, 50, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(matches!(store.get("a/b").await, Err(Error::Damaged { .. })), "{length} bytes");
        assert!(matches!(store.get_stream("a/b").await.err(), Some(Error::Damaged { .. })), "{length} bytes");
        assert!(matches!(store.head("a/b").await, Err(Error::Damaged { .. })), "{length} bytes");
    }
}

#[tokio::test]
async fn an_object_is_not_a_folder() {
    let store = fresh();
    store.put("a/b", Bytes::from_static(b"x")).await.unwrap();
    for key in ["a", "a/b/c", "a/b/c/d"] {
        let error = store.put(key, Bytes::from_static(b"y")).await.unwrap_err();
        assert!(matches!(error, Error::Key { .. }), "{key}: {error}");
        let error = store.put_if_absent(key, Bytes::from_static(b"y")).await;
        assert!(matches!(error, Err(Error::Key { .. }) | Ok(Put::Exists)), "{key}: {error:?}");
    }
    assert_eq!(store.list("").await.unwrap(), ["a/b"]);
}

#[tokio::test]
async fn opening_removes_what_dead_writers_left_and_no_more() {
    let store = fresh();
    let folder = store.root().join(PARTIAL);
    fs::write(folder.join("dead"), "half an obj").unwrap();
    let mut alive = Partial::create(&folder).unwrap();
    alive.append(b"content").unwrap();
    let reopened = Directory::open(store.root()).unwrap();
    assert!(!folder.join("dead").exists());
    alive.finish("k").unwrap();
    alive.replace(reopened.root(), "k").unwrap();
    assert_eq!(reopened.get("k").await.unwrap(), "content");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[tokio::test]
async fn a_put_that_nobody_waits_for_leaves_nothing_half_done() {
    let store = fresh();
    let endless = futures::stream::iter(std::iter::repeat_with(|| Ok(Bytes::from(vec![0; 1000])))).boxed();
    let put = tokio::time::timeout(std::time::Duration::from_millis(20), store.put_stream("k", endless)).await;
    assert!(put.is_err(), "it cannot end");
    assert_eq!(store.head("k").await.unwrap(), None);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = Directory::open(file.join("store")).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn system_errors_are_sorted() {
    let store = fresh();
    let sort = |kind: io::ErrorKind| store.failed("k", kind.into());
    assert!(matches!(sort(io::ErrorKind::StorageFull), Error::Full { .. }));
    assert!(matches!(sort(io::ErrorKind::FileTooLarge), Error::Full { .. }));
    assert!(matches!(sort(io::ErrorKind::ReadOnlyFilesystem), Error::Denied { .. }));
    assert!(matches!(sort(io::ErrorKind::PermissionDenied), Error::Denied { .. }));
    assert!(matches!(sort(io::ErrorKind::NotFound), Error::NotFound(_)));
    assert!(sort(io::ErrorKind::Other).is_transient());
    assert!(!sort(io::ErrorKind::StorageFull).is_transient());
}
