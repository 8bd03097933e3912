//! What every broker must do. A backend's tests call [`queue_conformance!`](crate::queue_conformance).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use tokio::time::timeout;

use super::{Consumer, DeathReason, Declaration, Delivery, Error, Message, Queue, Subscription};

/// Makes a test of each case. The expression gives a [`Broker`]: a function that connects to one and the same empty broker
/// each time it is called; it is evaluated for each test.
#[macro_export]
macro_rules! queue_conformance {
    ($broker:expr) => {
        $crate::queue_conformance!(@cases $broker;
            delivers_in_order, keeps_messages_without_consumers, declares_once, refuses_unknown_queues,
            confirms_batches_in_order, prefetch_bounds_the_unsettled, requeues_to_the_front, rejects_to_the_dead,
            dead_letters_come_back_or_go, dies_at_the_delivery_limit, a_closed_consumer_returns_its_deliveries,
            a_dropped_consumer_returns_its_deliveries, settles_once,
            settles_many_at_once, survives_dropped_waits, shares_among_consumers,
            purges_what_is_ready, events_reach_who_subscribes, control_reaches_everybody,
        );
    };
    (@cases $broker:expr; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::queue::conformance::$case($broker).await;
            }
        )*
    };
}

/// Connects to the broker under test, as another process would.
pub type Broker = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Queue>> + Send + Sync>;

/// How long something that must happen may take.
const SOON: Duration = Duration::from_secs(20);

/// How long we watch that something does not happen.
const A_WHILE: Duration = Duration::from_millis(250);

/// Messages come in the order in which they were published, whole.
pub async fn delivers_in_order(broker: Broker) {
    let queue = with_queue(&broker).await;
    for number in 0..5 {
        let mut message = numbered(number);
        message.headers = BTreeMap::from([("traceparent".to_owned(), format!("ünï-{number}"))]);
        queue.publish("q", message).await.expect("publish");
    }
    let mut consumer = broker().await.consume("q", 10).await.expect("consume");
    for number in 0..5 {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.id, format!("m{number}"));
        assert_eq!(delivery.message.payload, Bytes::from(vec![number as u8; 100]));
        assert_eq!(delivery.message.headers["traceparent"], format!("ünï-{number}"));
        assert_eq!((delivery.delivery_count, delivery.redelivered), (0, false));
        delivery.acknowledge().await.expect("acknowledge");
    }
    consumer.close().await.expect("close");
    assert_depth(&queue, "q", 0, 0).await;
}

/// A message waits for its consumer, who waits for the next.
pub async fn keeps_messages_without_consumers(broker: Broker) {
    let queue = with_queue(&broker).await;
    queue.publish("q", numbered(0)).await.expect("publish");
    drop(queue);
    let queue = broker().await;
    assert_depth(&queue, "q", 1, 0).await;
    let mut consumer = queue.consume("q", 2).await.expect("consume");
    let first = next(&mut consumer).await;
    let waiting = tokio::spawn(async move { (next(&mut consumer).await, consumer) });
    broker().await.publish("q", numbered(1)).await.expect("publish");
    let (second, consumer) = waiting.await.expect("task");
    assert_eq!((first.message.id.as_str(), second.message.id.as_str()), ("m0", "m1"));
    drop(consumer);
}

/// Declaring again changes nothing; declaring otherwise is refused.
pub async fn declares_once(broker: Broker) {
    let queue = with_queue(&broker).await;
    queue.publish("q", numbered(0)).await.expect("publish");
    queue.declare(&Declaration::new("q")).await.expect("declare again");
    assert_depth(&queue, "q", 1, 0).await;
    let other = Declaration { queue: "q".to_owned(), delivery_limit: 7 };
    assert!(matches!(queue.declare(&other).await, Err(Error::Mismatch { .. })));
    assert_depth(&queue, "q", 1, 0).await;
}

/// A message to nowhere is an error, not lost.
pub async fn refuses_unknown_queues(broker: Broker) {
    let queue = with_queue(&broker).await;
    let unknown = |error: Option<Error>| matches!(error, Some(Error::UnknownQueue(name)) if name == "nowhere");
    assert!(unknown(queue.publish("nowhere", numbered(0)).await.err()));
    assert!(unknown(queue.consume("nowhere", 1).await.err()));
    assert!(unknown(queue.depth("nowhere").await.err()));
    assert!(unknown(queue.purge("nowhere").await.err()));
    queue.publish("q", numbered(0)).await.expect("the connection is still usable");
}

/// A batch is published in order, with a result for each; one that is too large harms no other.
pub async fn confirms_batches_in_order(broker: Broker) {
    let queue = with_queue(&broker).await;
    let mut messages: Vec<Message> = (0..1000).map(numbered).collect();
    messages[500].payload = vec![0; (1 << 20) + 1].into();
    let results = queue.publish_batch("q", messages).await.expect("publish");
    assert_eq!(results.len(), 1000);
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(()) => assert_ne!(number, 500),
            Err(error) => assert!(matches!(error, Error::NotConfirmed { id, .. } if id == "m500"), "{error}"),
        }
    }
    assert_depth(&queue, "q", 999, 0).await;
    let mut consumer = queue.consume("q", 1000).await.expect("consume");
    for number in (0..1000).filter(|number| *number != 500) {
        assert_eq!(next(&mut consumer).await.message.id, format!("m{number}"));
    }
}

/// No more than `prefetch` messages are in a consumer's hands.
pub async fn prefetch_bounds_the_unsettled(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 4).await;
    let mut consumer = queue.consume("q", 2).await.expect("consume");
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    assert!(is_quiet(&mut consumer).await, "a third message came");
    first.acknowledge().await.expect("acknowledge");
    let third = next(&mut consumer).await;
    assert!(is_quiet(&mut consumer).await, "a fourth message came");
    assert_eq!((second.message.id.as_str(), third.message.id.as_str()), ("m1", "m2"));
    // Another consumer has its own allowance.
    let mut other = broker().await.consume("q", 1).await.expect("consume");
    assert_eq!(next(&mut other).await.message.id, "m3");
}

/// A requeued message comes again before those that wait, and says so.
pub async fn requeues_to_the_front(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 3).await;
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    next(&mut consumer).await.requeue().await.expect("requeue");
    let again = next(&mut consumer).await;
    assert_eq!((again.message.id.as_str(), again.delivery_count, again.redelivered), ("m0", 1, true));
    again.acknowledge().await.expect("acknowledge");
    assert_eq!(next(&mut consumer).await.message.id, "m1");
}

/// A rejected message is not delivered again, and is listed whole.
pub async fn rejects_to_the_dead(broker: Broker) {
    let queue = with_queue(&broker).await;
    let mut message = numbered(0);
    message.headers.insert("kept".to_owned(), "yes".to_owned());
    queue.publish("q", message.clone()).await.expect("publish");
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    next(&mut consumer).await.reject().await.expect("reject");
    assert!(is_quiet(&mut consumer).await);
    assert_depth(&queue, "q", 0, 0).await;
    let letters = dead(&broker, 1).await;
    assert_eq!((letters[0].queue.as_str(), letters[0].reason), ("q", DeathReason::Rejected));
    assert_eq!(letters[0].message, message);
    assert_eq!(dead(&broker, 1).await, letters, "listing does not change them");
}

/// A dead letter can be published again, as if it were new, or forgotten.
pub async fn dead_letters_come_back_or_go(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 3).await;
    let mut consumer = queue.consume("q", 3).await.expect("consume");
    for _ in 0..3 {
        next(&mut consumer).await.reject().await.expect("reject");
    }
    let letters = dead(&broker, 3).await;
    assert_eq!(queue.dead_letters(2).await.expect("list").len(), 2);
    let letter = |id: &str| letters.iter().find(|letter| letter.message.id == id).expect("listed").id.clone();
    queue.retry_dead_letter(&letter("m1")).await.expect("retry");
    let again = next(&mut consumer).await;
    assert_eq!((again.message.id.as_str(), again.delivery_count), ("m1", 0));
    again.acknowledge().await.expect("acknowledge");
    queue.discard_dead_letter(&letter("m0")).await.expect("discard");
    let left = dead(&broker, 1).await;
    assert_eq!(left[0].message.id, "m2");
    for id in [letter("m0").as_str(), letter("m1").as_str(), "no such letter"] {
        assert!(matches!(queue.retry_dead_letter(id).await, Err(Error::UnknownDeadLetter(_))), "{id}");
        assert!(matches!(queue.discard_dead_letter(id).await, Err(Error::UnknownDeadLetter(_))), "{id}");
    }
}

/// With a limit of 3 a message is delivered four times, by whatever way it comes back; then it is dead.
pub async fn dies_at_the_delivery_limit(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 2).await;
    // A requeued message comes to the consumer that requeued it: a broker may have sent it before that one is gone, and then
    // its going counts too.
    for counts in [0..2, 2..4] {
        let mut consumer = broker().await.consume("q", 1).await.expect("consume");
        for count in counts.clone() {
            let delivery = next(&mut consumer).await;
            assert_eq!((delivery.message.id.as_str(), delivery.delivery_count), ("m0", count));
            if count == counts.start {
                delivery.requeue().await.expect("requeue");
            }
        }
        consumer.close().await.expect("close");
    }
    let letters = dead(&broker, 1).await;
    assert_eq!((letters[0].message.id.as_str(), letters[0].reason), ("m0", DeathReason::DeliveryLimit));
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    let innocent = next(&mut consumer).await;
    assert_eq!((innocent.message.id.as_str(), innocent.delivery_count), ("m1", 0), "what waits behind it is untouched");
}

/// When `close` has returned, the deliveries are ready again, in their old order.
pub async fn a_closed_consumer_returns_its_deliveries(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 3).await;
    let mut consumer = queue.consume("q", 2).await.expect("consume");
    let held = [next(&mut consumer).await, next(&mut consumer).await];
    consumer.close().await.expect("close");
    assert_depth(&queue, "q", 3, 0).await;
    let mut other = broker().await.consume("q", 3).await.expect("consume");
    for (id, count) in [("m0", 1), ("m1", 1), ("m2", 0)] {
        let delivery = next(&mut other).await;
        assert_eq!((delivery.message.id.as_str(), delivery.delivery_count), (id, count));
    }
    for delivery in held {
        assert!(matches!(delivery.acknowledge().await, Err(Error::Settled(_))), "it is another's now");
    }
}

/// Dropping a consumer is as good as closing it, a little later.
pub async fn a_dropped_consumer_returns_its_deliveries(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 1).await;
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    let held = next(&mut consumer).await;
    drop(consumer);
    let mut other = broker().await.consume("q", 1).await.expect("consume");
    let delivery = next(&mut other).await;
    assert_eq!((delivery.message.id.as_str(), delivery.delivery_count, delivery.redelivered), ("m0", 1, true));
    assert!(matches!(held.acknowledge().await, Err(Error::Settled(_))));
    delivery.acknowledge().await.expect("the new holder's counts");
    assert_depth(&queue, "q", 0, 0).await;
}

/// A delivery that is dropped stays its consumer's: nobody else gets it.
pub async fn settles_once(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 1).await;
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    drop(next(&mut consumer).await);
    let mut other = broker().await.consume("q", 1).await.expect("consume");
    assert!(is_quiet(&mut other).await, "an unsettled message was delivered twice");
    assert!(is_quiet(&mut consumer).await);
    consumer.close().await.expect("close");
    assert_eq!(next(&mut other).await.delivery_count, 1);
}

/// Each delivery ends as it was settled, also where many are settled at the same time and in any order.
pub async fn settles_many_at_once(broker: Broker) {
    const COUNT: usize = 400;
    let queue = with_queue(&broker).await;
    publish(&queue, COUNT).await;
    let mut consumer = queue.consume("q", COUNT as u16).await.expect("consume");
    let mut held = Vec::new();
    let mut settling = Vec::new();
    for number in 0..COUNT {
        let delivery = next(&mut consumer).await;
        match number % 7 {
            3 => held.push(delivery),
            5 => settling.push(tokio::spawn(delivery.reject())),
            _ => settling.push(tokio::spawn(delivery.acknowledge())),
        }
    }
    for settled in join_all(settling).await {
        settled.expect("no panic").expect("settled");
    }
    consumer.close().await.expect("close");
    let mut other = broker().await.consume("q", COUNT as u16).await.expect("consume");
    for number in (0..COUNT).filter(|number| number % 7 == 3) {
        assert_eq!(next(&mut other).await.message.id, format!("m{number}"));
    }
    assert!(is_quiet(&mut other).await, "an acknowledged or rejected message came again");
    let dead = queue.dead_letters(COUNT).await.expect("dead letters");
    let rejected: BTreeSet<_> = dead.into_iter().map(|letter| letter.message.id).collect();
    assert_eq!(rejected, (0..COUNT).filter(|number| number % 7 == 5).map(|number| format!("m{number}")).collect());
}

/// Waits that are given up lose no message.
pub async fn survives_dropped_waits(broker: Broker) {
    let queue = with_queue(&broker).await;
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    let publisher = tokio::spawn({
        let queue = broker().await;
        async move {
            for number in 0..40 {
                queue.publish("q", numbered(number)).await.expect("publish");
                tokio::task::yield_now().await;
            }
        }
    });
    let mut seen = Vec::new();
    let mut given_up = 0;
    while seen.len() < 40 {
        match timeout(Duration::from_micros(300), consumer.next()).await {
            Ok(delivery) => {
                let delivery = delivery.expect("next");
                seen.push(delivery.message.id.clone());
                assert!(!delivery.redelivered);
                delivery.acknowledge().await.expect("acknowledge");
            }
            Err(_) => given_up += 1,
        }
        assert!(given_up < 100_000, "messages were lost: {seen:?}");
    }
    publisher.await.expect("task");
    assert_eq!(seen, (0..40).map(|number| format!("m{number}")).collect::<Vec<_>>());
}

/// Many consumers on several connections get each message once.
pub async fn shares_among_consumers(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 200).await;
    let takers = (0..4).map(|_| async {
        let mut consumer = broker().await.consume("q", 3).await.expect("consume");
        let mut taken = Vec::new();
        while let Ok(delivery) = timeout(A_WHILE * 4, consumer.next()).await {
            let delivery = delivery.expect("next");
            taken.push(delivery.message.id.clone());
            delivery.acknowledge().await.expect("acknowledge");
        }
        taken
    });
    let taken: Vec<String> = join_all(takers).await.concat();
    assert_eq!(taken.len(), 200);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 200);
    assert_depth(&queue, "q", 0, 0).await;
}

/// Purging drops what waits and leaves what is in hands.
pub async fn purges_what_is_ready(broker: Broker) {
    let queue = with_queue(&broker).await;
    publish(&queue, 5).await;
    let mut consumer = queue.consume("q", 1).await.expect("consume");
    let held = next(&mut consumer).await;
    assert_eq!(queue.purge("q").await.expect("purge"), 4);
    assert_depth(&queue, "q", 0, 1).await;
    held.acknowledge().await.expect("acknowledge");
    assert_depth(&queue, "q", 0, 0).await;
}

/// Subscribers get the events that match, from their subscription on, each.
pub async fn events_reach_who_subscribes(broker: Broker) {
    let queue = broker().await;
    queue.publish_event("a.early.x", Bytes::from_static(b"missed")).await.expect("publish");
    let mut one = queue.subscribe("a.*.x").await.expect("subscribe");
    let mut all = broker().await.subscribe("#").await.expect("subscribe");
    let mut control = queue.listen().await.expect("listen");
    for topic in ["a.b.x", "a.b.y", "a.c.x"] {
        broker().await.publish_event(topic, Bytes::from(topic.to_owned())).await.expect("publish");
    }
    assert_eq!([notice(&mut one).await, notice(&mut one).await], ["a.b.x", "a.c.x"]);
    assert_eq!([notice(&mut all).await, notice(&mut all).await, notice(&mut all).await], ["a.b.x", "a.b.y", "a.c.x"]);
    assert!(timeout(A_WHILE, control.next()).await.is_err(), "an event is not a control message");
}

/// Control messages reach every listener.
pub async fn control_reaches_everybody(broker: Broker) {
    let queue = broker().await;
    let mut listeners = vec![queue.listen().await.expect("listen"), broker().await.listen().await.expect("listen")];
    let mut events = queue.subscribe("#").await.expect("subscribe");
    queue.broadcast(Bytes::from_static(b"drain")).await.expect("broadcast");
    for listener in &mut listeners {
        let notice = timeout(SOON, listener.next()).await.expect("in time").expect("next");
        assert_eq!((notice.topic.as_str(), &notice.payload[..]), ("", &b"drain"[..]));
    }
    assert!(timeout(A_WHILE, events.next()).await.is_err(), "a control message is not an event");
}

async fn with_queue(broker: &Broker) -> Arc<dyn Queue> {
    let queue = broker().await;
    queue.declare(&Declaration::new("q")).await.expect("declare");
    queue
}

async fn publish(queue: &Arc<dyn Queue>, count: usize) {
    for result in queue.publish_batch("q", (0..count).map(numbered).collect()).await.expect("publish") {
        result.expect("confirmed");
    }
}

fn numbered(number: usize) -> Message {
    Message::new(format!("m{number}"), vec![number as u8; 100])
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(SOON, consumer.next()).await.expect("a message in time").expect("next")
}

async fn is_quiet(consumer: &mut Box<dyn Consumer>) -> bool {
    timeout(A_WHILE, consumer.next()).await.is_err()
}

async fn notice(subscription: &mut Box<dyn Subscription>) -> String {
    let notice = timeout(SOON, subscription.next()).await.expect("in time").expect("next");
    assert_eq!(notice.payload, notice.topic);
    notice.topic
}

/// The dead letters, once there are `count`: a broker may take a moment.
async fn dead(broker: &Broker, count: usize) -> Vec<super::DeadLetter> {
    let queue = broker().await;
    timeout(SOON, async {
        loop {
            let letters = queue.dead_letters(100).await.expect("list");
            if letters.len() == count {
                return letters;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the dead letters in time")
}

/// Waits until the queue has this depth: a broker may count late.
async fn assert_depth(queue: &Arc<dyn Queue>, name: &str, ready: u64, unacknowledged: u64) {
    let mut depth = queue.depth(name).await.expect("depth");
    for _ in 0..100 {
        if depth.ready == ready && depth.unacknowledged.is_none_or(|found| found == unacknowledged) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        depth = queue.depth(name).await.expect("depth");
    }
    panic!("expected {ready} ready and {unacknowledged} unacknowledged, found {depth:?}");
}
