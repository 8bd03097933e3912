use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use hiresmed_services::store::{ByteStream, Error, Put, Store};
use hiresmed_tests::{
    proxy::{Fault, Proxy},
    servers::Seaweed,
};

use crate::open_store;

mod conformance {
    use super::{Seaweed, open_store};

    hiresmed_services::store_conformance!(async { open_store(&Seaweed::shared().fresh()).await });
}

/// A store behind a proxy.
async fn behind_proxy() -> (Arc<dyn Store>, Proxy) {
    let proxy = Proxy::start(Seaweed::shared().address());
    let mut settings = Seaweed::shared().fresh();
    settings.url = Some(format!("http://{}", proxy.address()));
    (open_store(&settings).await, proxy)
}

fn pieces(count: u64, size: usize) -> ByteStream {
    stream::iter((0..count).map(move |number| Ok(Bytes::from(vec![number as u8; size])))).boxed()
}

async fn read(store: &Arc<dyn Store>, key: &str) -> std::io::Result<Vec<u8>> {
    let stream = store.get_stream(key).await.map_err(std::io::Error::other)?;
    stream
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_made_where_there_is_none() {
    let mut settings = Seaweed::shared().fresh();
    let (_, prefix) = settings.endpoint.trim_start_matches("s3://").split_once('/').unwrap();
    // A prefix of its own is a bucket's name as well.
    settings.endpoint = format!("s3://{prefix}");
    let store = open_store(&settings).await;
    // Reading: some servers make a bucket at the first write.
    let error = store.get("a/b").await.unwrap_err().to_string();
    assert!(error.contains("there is no bucket"), "{error}");
    for _ in 0..2 {
        store.create().await.unwrap();
    }
    store.put("a/b", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(store.list("").await.unwrap(), ["a/b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creators_on_many_connections_one_wins() {
    let settings = Seaweed::shared().fresh();
    // SeaweedFS lets who meets another wait for whole seconds.
    for round in 0..4 {
        let key = format!("race/{round}/done.json");
        let calls = (0..24).map(|call| {
            let (settings, key) = (settings.clone(), key.clone());
            tokio::spawn(async move {
                let store = open_store(&settings).await;
                store.put_if_absent(&key, Bytes::from(format!("{call}"))).await.unwrap()
            })
        });
        let puts: Vec<Put> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<usize> = (0..24).filter(|&call| puts[call] == Put::Created).collect();
        assert_eq!(winners.len(), 1, "round {round}: {puts:?}");
        let kept = open_store(&settings).await.get(&key).await.unwrap();
        assert_eq!(kept, winners[0].to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_stream_goes_up_in_parts_and_comes_back() {
    let store = open_store(&Seaweed::shared().fresh()).await;
    let head = store.put_stream("large", pieces(64, 1 << 20)).await.unwrap();
    assert_eq!(head.size_bytes, 64 << 20);
    assert_eq!(store.head("large").await.unwrap(), Some(head));
    let mut stream = store.get_stream("large").await.unwrap();
    let mut read = 0_u64;
    while let Some(piece) = stream.try_next().await.unwrap() {
        let expected = (read >> 20) as u8;
        assert_eq!(piece[0], expected);
        read += piece.len() as u64;
    }
    assert_eq!(read, 64 << 20);
    // In memory at once, above the parts' own limit.
    let whole = Bytes::from(vec![9; (16 << 20) + 1]);
    store.put("whole", whole.clone()).await.unwrap();
    assert!(store.get("whole").await.unwrap() == whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_work_without_credentials() {
    let store = open_store(&Seaweed::shared().fresh()).await;
    store.put("a/ünï b.json", Bytes::from_static(b"content")).await.unwrap();
    let link = store.presign_get("a/ünï b.json", Duration::from_secs(60)).await.unwrap().unwrap();
    let answer = fetch(&link);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("content"), "{answer}");
    let forged = link.replace("X-Amz-Signature=", "X-Amz-Signature=0");
    assert!(fetch(&forged).starts_with("HTTP/1.1 403"), "a changed signature opens the object");
    assert!(matches!(store.presign_get("../x", Duration::from_secs(60)).await, Err(Error::Key { .. })));
}

fn fetch(link: &str) -> String {
    let (host, path) = link.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.write_all(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_seen_on_every_way_of_reading() {
    let settings = Seaweed::shared().fresh();
    let store = open_store(&settings).await;
    let proxy = Proxy::start(Seaweed::shared().address());
    let mut through = settings.clone();
    through.url = Some(format!("http://{}", proxy.address()));
    let through = open_store(&through).await;
    store.put("k", Bytes::from_static(b"good")).await.unwrap();
    let digest = "0".repeat(64);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nx-amz-meta-sha256: {digest}\r\n\r\nevil");
    proxy.set(Fault::Answer(answer.into_bytes()));
    assert!(matches!(through.get("k").await, Err(Error::Damaged { .. })));
    assert!(read(&through, "k").await.unwrap_err().to_string().contains("damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let (store, proxy) = behind_proxy().await;
    let content = Bytes::from((0..6_000_000_u32).map(|i| (i / 1000) as u8).collect::<Vec<_>>());
    store.put("k", content.clone()).await.unwrap();
    proxy.set(Fault::CutAfter(2_500_000));
    assert!(store.get("k").await.unwrap() == content);
    assert!(read(&store, "k").await.unwrap() == content);
    assert!(proxy.accepted() > 4, "the connections were not cut");
    // So early that nothing is ever whole: an error, in time, and never a part.
    proxy.set(Fault::CutAfter(50));
    assert!(store.get("k").await.unwrap_err().is_transient());
    proxy.set(Fault::Pass);
    assert!(store.get("k").await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_whose_answer_was_lost_is_still_ours() {
    let (store, proxy) = behind_proxy().await;
    store.put("warm", Bytes::from_static(b"x")).await.unwrap();
    // The server creates the object; its answer is cut; the second try finds the object there.
    proxy.set(Fault::CutAfter(10));
    let creating = tokio::spawn({
        let store = store.clone();
        async move { store.put_if_absent("done.json", Bytes::from_static(b"mine")).await }
    });
    while proxy.accepted() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.set(Fault::Pass);
    assert_eq!(creating.await.unwrap().unwrap(), Put::Created);
    assert_eq!(store.put_if_absent("done.json", Bytes::from_static(b"other")).await.unwrap(), Put::Exists);
    assert_eq!(store.get("done.json").await.unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_survived_and_lasting_ones_are_transient_errors() {
    let (store, proxy) = behind_proxy().await;
    store.put("k", Bytes::from_static(b"x")).await.unwrap();
    proxy.set(Fault::Latency(Duration::from_millis(100)));
    assert_eq!(store.get("k").await.unwrap(), "x");
    let busy = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
    proxy.set(Fault::Answer(busy.as_bytes().to_vec()));
    let error = store.get("k").await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("503"), "{error}");
    proxy.set(Fault::Refuse);
    let error = store.put("k", Bytes::from_static(b"y")).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let error = store.put_stream("large", pieces(20, 1 << 20)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    proxy.set(Fault::Pass);
    assert_eq!(store.get("k").await.unwrap(), "x", "a put that failed changed something");
    assert_eq!(store.list("").await.unwrap(), ["k"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_bucket_and_wrong_credentials_are_named() {
    let mut settings = Seaweed::shared().fresh();
    settings.secret_access_key = Some("sesame".into());
    settings.access_key_id.get_or_insert_with(|| "nobody".to_owned());
    let error = open_store(&settings).await.put("k", Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(!error.to_string().contains("sesame"), "{error}");
    let mut settings = Seaweed::shared().fresh();
    settings.endpoint = "s3://there-is-no-such-bucket".to_owned();
    let error = open_store(&settings).await.get("k").await.unwrap_err();
    assert!(error.to_string().contains("there-is-no-such-bucket"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_of_keys_is_listed() {
    let store = open_store(&Seaweed::shared().fresh()).await;
    let puts = (0..1203).map(|number| {
        let store = store.clone();
        async move { store.put(&format!("many/{number:05}"), Bytes::from_static(b"x")).await }
    });
    stream::iter(puts).buffer_unordered(16).try_collect::<Vec<_>>().await.unwrap();
    let expected: Vec<String> = (0..1203).map(|number| format!("many/{number:05}")).collect();
    assert_eq!(store.list("many/").await.unwrap(), expected);
}
