use std::time::Duration;

use super::*;
use crate::queue::Declaration;

fn read(json: &str) -> Settings {
    serde_json::from_str(json).unwrap()
}

#[test]
fn endpoints_are_read() {
    let amqp = |tls, host: &str, port, virtual_host: &str| QueueEndpoint::Amqp {
        tls,
        host: host.to_owned(),
        port,
        virtual_host: virtual_host.to_owned(),
    };
    for (text, expected) in [
        ("sqlite:/a/b.sqlite", QueueEndpoint::Sqlite("/a/b.sqlite".into())),
        ("amqp://broker", amqp(false, "broker", 5672, "/")),
        ("amqp://broker:5673/", amqp(false, "broker", 5673, "/")),
        ("amqps://[::1]/%2f", amqp(true, "::1", 5671, "/")),
        ("amqp://[::1]:99/fleet", amqp(false, "::1", 99, "fleet")),
    ] {
        assert_eq!(QueueEndpoint::parse(text).unwrap(), expected, "{text}");
    }
    for (text, expected) in [
        ("s3://abc", ("abc", "")),
        ("s3://a-b.c/", ("a-b.c", "")),
        ("s3://abc/d/e", ("abc", "d/e/")),
        ("s3://abc/d/", ("abc", "d/")),
    ] {
        let expected = StoreEndpoint::S3 { bucket: expected.0.to_owned(), prefix: expected.1.to_owned() };
        assert_eq!(StoreEndpoint::parse(text).unwrap(), expected, "{text}");
    }
    let redis = CacheEndpoint::Redis { tls: true, host: "r".to_owned(), port: 1, database: 3 };
    assert_eq!(CacheEndpoint::parse("rediss://r:1/3").unwrap(), redis);
    assert_eq!(CacheEndpoint::parse("memory:100").unwrap(), CacheEndpoint::Memory { most_bytes: 100 });
    assert_eq!(CacheEndpoint::parse("none").unwrap(), CacheEndpoint::Nothing);
}

#[test]
fn endpoints_without_meaning_are_refused() {
    for text in [
        "",
        "sqlite",
        "sqlite:",
        "kafka://a",
        "amqp:a",
        "amqp://",
        "amqp://:1",
        "amqp://a:0",
        "amqp://a:x",
        "amqp://[::1",
        "amqp://[::1]9",
        "amqp://a/b?c",
        "amqp://a b",
    ] {
        assert!(matches!(QueueEndpoint::parse(text), Err(Error::Endpoint { .. })), "{text}");
    }
    for text in ["", "/tmp", "directory:", "s3:abc", "s3://", "s3://ab", "s3://A_b", "s3://abc/../d", "s3://abc//"] {
        assert!(matches!(StoreEndpoint::parse(text), Err(Error::Endpoint { .. })), "{text}");
    }
    for text in ["", "memory", "memory:-1", "memory:1GB", "redis://a/x", "redis://a/-1", "none:x", "nothing"] {
        assert!(matches!(CacheEndpoint::parse(text), Err(Error::Endpoint { .. })), "{text}");
    }
}

#[test]
fn a_password_in_an_endpoint_is_refused_and_not_shown() {
    for error in [
        QueueEndpoint::parse("amqp://me:sesame@broker").unwrap_err(),
        QueueEndpoint::parse("amqp://me:sesame@@broker/x").unwrap_err(),
        CacheEndpoint::parse("redis://:sesame@cache:1/2").unwrap_err(),
        StoreEndpoint::parse("s3://sesame@bucket").unwrap_err(),
    ] {
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error}");
    }
}

#[test]
fn settings_are_read_strictly_and_show_no_secret() {
    let settings = read(r#"{"queue": {"endpoint": "amqp://b", "password": "sesame"}, "store": {"path_style": true}}"#);
    assert_eq!((settings.queue.user.as_str(), settings.store.endpoint.as_str()), ("guest", "directory:state/store"));
    assert!(!format!("{settings:?}").contains("sesame"));
    settings.check().unwrap();
    for json in [r#"{"broker": {}}"#, r#"{"queue": {"port": 1}}"#, r#"{"store": {"secret": "x"}}"#] {
        assert!(serde_json::from_str::<Settings>(json).is_err(), "{json}");
    }
    for json in [
        r#"{"store": {"access_key_id": "x"}}"#,
        r#"{"store": {"secret_access_key": "x"}}"#,
        r#"{"queue": {"password": "x", "password_file": "y"}}"#,
        r#"{"cache": {"password": "x", "password_file": "y"}}"#,
    ] {
        assert!(matches!(read(json).check(), Err(Error::Field { .. })), "{json}");
    }
}

#[test]
fn a_secret_is_read_from_its_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "open sesame\r\n").unwrap();
    let read = secret("queue.password_file", &None, &Some(file.path().to_owned())).unwrap().unwrap();
    assert_eq!(read.expose_secret(), "open sesame");
    let error = secret("queue.password_file", &None, &Some("/no/such/file".into())).unwrap_err();
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[tokio::test]
async fn the_embedded_backends_open() {
    let folder = tempfile::tempdir().unwrap();
    let place = |scheme: &str, name: &str| format!("{scheme}:{}", folder.path().join(name).display());
    let mut settings = Settings::default();
    settings.queue.endpoint = place("sqlite", "queue.sqlite");
    settings.store.endpoint = place("directory", "store");
    settings.cache.endpoint = "none".to_owned();
    let services = connect(&settings).await.unwrap();
    services.queue.declare(&Declaration::new("q")).await.unwrap();
    services.store.put("k", "x".into()).await.unwrap();
    services.cache.put("k", "x".into(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(services.cache.get("k").await.unwrap(), None);
    let token = services.cache.try_lock("l", Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(services.cache.unlock("l", &token).await.unwrap());
}
