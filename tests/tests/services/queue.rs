use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt;
use hiresmed_services::{
    queue::{Declaration, Error, Message, Queue, conformance::Broker},
    settings,
};
use hiresmed_tests::{
    proxy::{Fault, Proxy},
    servers::Rabbitmq,
};
use tokio::time::timeout;

use crate::open_queue;

/// Connects to one virtual host, which is empty at first.
fn fresh() -> Broker {
    let settings = Rabbitmq::shared().fresh();
    Box::new(move || {
        let settings = settings.clone();
        async move { open_queue(&settings).await }.boxed()
    })
}

mod conformance {
    hiresmed_services::queue_conformance!(super::fresh());
}

const SOON: Duration = Duration::from_secs(60);

fn numbered(range: std::ops::Range<usize>) -> Vec<Message> {
    range.map(|number| Message::new(format!("m{number}"), vec![0; 50])).collect()
}

async fn publish(queue: &Arc<dyn Queue>, messages: Vec<Message>) {
    for result in queue.publish_batch("q", messages).await.unwrap() {
        result.unwrap();
    }
}

/// Takes and acknowledges until `count` different messages were seen; consumes again when the connection is lost.
async fn take(queue: &Arc<dyn Queue>, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    timeout(SOON, async {
        while seen.len() < count {
            let Ok(mut consumer) = queue.consume("q", 50).await else { continue };
            while seen.len() < count {
                let Ok(delivery) = consumer.next().await else { break };
                seen.insert(delivery.message.id.clone());
                let _ = delivery.acknowledge().await;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{} messages of {count} came", seen.len()));
    seen
}

/// Settings that go through a proxy.
fn behind_proxy(rabbitmq: &Rabbitmq) -> (settings::Queue, Proxy) {
    let proxy = Proxy::start(&rabbitmq.address());
    let mut settings = rabbitmq.fresh();
    settings.endpoint = settings.endpoint.replace(&rabbitmq.address(), &proxy.address());
    (settings, proxy)
}

/// One broker dies for all of this: it takes ten seconds to start.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_loses_nothing_confirmed_and_all_go_on() {
    let rabbitmq = Rabbitmq::start();
    let settings = rabbitmq.fresh();
    let virtual_host = settings.endpoint.rsplit('/').next().unwrap().to_owned();
    let queue = open_queue(&settings).await;
    queue.declare(&Declaration::new("q")).await.unwrap();
    publish(&queue, numbered(0..500)).await;
    // A dead letter, a delivery in hand, an open subscription.
    let mut consumer = queue.consume("q", 2).await.unwrap();
    consumer.next().await.unwrap().reject().await.unwrap();
    let held = consumer.next().await.unwrap();
    while queue.dead_letters(10).await.unwrap().is_empty() {}
    let mut events = queue.subscribe("#").await.unwrap();

    // RabbitMQ 3.10 can lose a queue that is killed within seconds of its declaration: fleets declare theirs at the start.
    tokio::time::sleep(Duration::from_secs(6)).await;
    rabbitmq.kill();
    let ended = async {
        // What was on its way may still come.
        loop {
            if let Err(error) = consumer.next().await {
                return error;
            }
        }
    };
    assert!(matches!(timeout(SOON, ended).await.unwrap(), Error::Unreachable { .. }));
    assert!(matches!(timeout(SOON, events.next()).await.unwrap(), Err(Error::Unreachable { .. })));
    assert!(matches!(held.acknowledge().await, Err(Error::Settled(_))));
    let started = Instant::now();
    assert!(matches!(queue.publish_event("t", Bytes::new()).await, Err(Error::Unreachable { .. })));
    assert!(started.elapsed() < Duration::from_secs(8), "an event waited {:?}", started.elapsed());
    // A publish under way while the broker is away waits for it.
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move { publish(&queue, numbered(500..600)).await }
    });
    rabbitmq.restart();
    publishing.await.unwrap();
    let seen = take(&queue, 599).await;
    assert!(!seen.contains("m0"), "a dead letter was delivered");
    let dead = queue.dead_letters(10).await.unwrap();
    assert_eq!((dead.len(), dead[0].message.id.as_str()), (1, "m0"));
    let mut events = queue.subscribe("#").await.unwrap();
    queue.publish_event("t", Bytes::new()).await.unwrap();
    assert_eq!(timeout(SOON, events.next()).await.unwrap().unwrap().topic, "t");

    // With its data deleted it comes back empty: everything that was declared exists again at the next use.
    rabbitmq.kill();
    rabbitmq.delete_data();
    rabbitmq.restart();
    rabbitmq.make_virtual_host(&virtual_host);
    publish(&queue, numbered(0..10)).await;
    assert_eq!(take(&queue, 10).await.len(), 10);
    assert!(queue.dead_letters(10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_again_and_again_lose_nothing() {
    let (settings, proxy) = behind_proxy(Rabbitmq::shared());
    let queue = open_queue(&settings).await;
    queue.declare(&Declaration { queue: "q".to_owned(), delivery_limit: 1000 }).await.unwrap();
    let publishing = tokio::spawn({
        let queue = queue.clone();
        async move {
            for start in (0..2000).step_by(100) {
                publish(&queue, numbered(start..start + 100)).await;
            }
        }
    });
    let cutting = tokio::spawn(async move {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.cut();
        }
        proxy
    });
    let seen = take(&queue, 2000).await;
    publishing.await.unwrap();
    assert_eq!(seen.len(), 2000);
    drop(cutting.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_broker_is_noticed() {
    let (settings, proxy) = behind_proxy(Rabbitmq::shared());
    let queue = open_queue(&settings).await;
    queue.declare(&Declaration::new("q")).await.unwrap();
    publish(&queue, numbered(0..1)).await;
    let mut consumer = queue.consume("q", 1).await.unwrap();
    consumer.next().await.unwrap().acknowledge().await.unwrap();
    proxy.set(Fault::Silence);
    // Two heartbeats of 10 s, and some patience.
    let ended = timeout(Duration::from_secs(45), consumer.next()).await.expect("heartbeats end the consumer");
    assert!(matches!(ended, Err(Error::Unreachable { .. })));
    proxy.set(Fault::Pass);
    proxy.cut();
    publish(&queue, numbered(1..2)).await;
    let mut taken = take(&queue, 1).await;
    // The first one's acknowledgement may have been lost in the silence: then it comes again, before the second.
    if taken.contains("m0") {
        taken = take(&queue, 1).await;
    }
    assert!(taken.contains("m1"), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_look_at_the_dead_letters_at_once() {
    let broker = fresh();
    let queue = broker().await;
    queue.declare(&Declaration::new("q")).await.unwrap();
    publish(&queue, numbered(0..30)).await;
    let mut consumer = queue.consume("q", 30).await.unwrap();
    for _ in 0..30 {
        consumer.next().await.unwrap().reject().await.unwrap();
    }
    timeout(SOON, async { while queue.dead_letters(100).await.unwrap().len() < 30 {} }).await.unwrap();
    let lookers = (0..4).map(|_| async {
        let queue = broker().await;
        for _ in 0..5 {
            let letters = queue.dead_letters(100).await.unwrap();
            let ids: Vec<String> = letters.iter().map(|letter| letter.message.id.clone()).collect();
            assert_eq!(ids, (0..30).map(|number| format!("m{number}")).collect::<Vec<_>>(), "all, in their order");
        }
    });
    futures::future::join_all(lookers).await;
    // A listing that is given up half-way keeps nobody out.
    for _ in 0..20 {
        let _ = timeout(Duration::from_millis(3), queue.dead_letters(100)).await;
    }
    assert_eq!(broker().await.dead_letters(100).await.unwrap().len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_may_die_twice_under_two_names() {
    let queue = fresh()().await;
    queue.declare(&Declaration::new("q")).await.unwrap();
    let twin = || Message::new("twin", vec![1]);
    publish(&queue, vec![twin(), twin()]).await;
    let mut consumer = queue.consume("q", 2).await.unwrap();
    for _ in 0..2 {
        consumer.next().await.unwrap().reject().await.unwrap();
    }
    timeout(SOON, async { while queue.dead_letters(9).await.unwrap().len() < 2 {} }).await.unwrap();
    let letters = queue.dead_letters(9).await.unwrap();
    assert_ne!(letters[0].id, letters[1].id);
    queue.retry_dead_letter(&letters[0].id).await.unwrap();
    consumer.next().await.unwrap().reject().await.unwrap();
    timeout(SOON, async { while queue.dead_letters(9).await.unwrap().len() < 2 {} }).await.unwrap();
    assert!(matches!(queue.discard_dead_letter(&letters[0].id).await, Err(Error::UnknownDeadLetter(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_user_is_told_at_once() {
    let mut settings = Rabbitmq::shared().fresh();
    settings.password = Some("sesame".into());
    let started = Instant::now();
    let settings = hiresmed_services::Settings { queue: settings, ..crate::embedded() };
    let error = hiresmed_services::connect(&settings).await.err().unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(error.to_string().contains("ACCESS_REFUSED") && !error.to_string().contains("sesame"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_and_subscriptions_end_with_their_connection() {
    let (settings, proxy) = behind_proxy(Rabbitmq::shared());
    let queue = open_queue(&settings).await;
    queue.declare(&Declaration::new("q")).await.unwrap();
    let mut consumer = queue.consume("q", 2).await.unwrap();
    let mut events = queue.subscribe("#").await.unwrap();
    let mut control = queue.listen().await.unwrap();
    proxy.cut();
    let ended = timeout(SOON, consumer.next()).await.expect("the consumer ends");
    assert!(matches!(ended, Err(Error::Unreachable { .. })));
    let ended = timeout(SOON, events.next()).await.expect("the subscription ends");
    assert!(matches!(ended, Err(Error::Unreachable { .. })));
    let ended = timeout(SOON, control.next()).await.expect("the listener ends");
    assert!(matches!(ended, Err(Error::Unreachable { .. })));
}
