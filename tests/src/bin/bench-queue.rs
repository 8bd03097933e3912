//! `make bench-queue`: no-op jobs through our queue on RabbitMQ beside Celery and Dramatiq on the same broker, and fair shares; the
//! last line is one JSON object. `bench-queue PYTHON` names the interpreter that has the peers.

use std::{
    collections::BTreeMap,
    io::Write,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use hiresmed_coordinator::{Sites, sites::SiteSettings};
use hiresmed_protocol::Verdict;
use hiresmed_services::{
    Settings,
    queue::{Declaration, Message, Queue},
};
use hiresmed_tests::{
    fleet::Fleet,
    servers::{Rabbitmq, Redis, Seaweed},
};
use serde_json::{Value, json};

/// Messages of a throughput run.
const MESSAGES: usize = 40_000;
/// Messages that are published in one go.
const BATCH: usize = 500;
/// Messages a second of a latency run, and for how long; the peers are asked for the same.
const RATE: u32 = 200;
const LATENCY_SECONDS: u32 = 10;
/// Our side's settings: who publishes at the same time, who consumes, and how many messages each of them holds.
const SETTINGS: [Setting; 8] = [
    Setting { publishers: 1, consumers: 2, prefetch: 16 },
    Setting { publishers: 1, consumers: 2, prefetch: 64 },
    Setting { publishers: 1, consumers: 2, prefetch: 256 },
    Setting { publishers: 2, consumers: 1, prefetch: 256 },
    Setting { publishers: 2, consumers: 2, prefetch: 256 },
    Setting { publishers: 4, consumers: 2, prefetch: 256 },
    Setting { publishers: 4, consumers: 4, prefetch: 64 },
    Setting { publishers: 8, consumers: 2, prefetch: 256 },
];
/// Latency is measured with one of each.
const PREFETCH: [u16; 3] = [16, 64, 256];
const WEIGHTS: [(&str, f64); 3] = [("one", 1.0), ("two", 2.0), ("four", 4.0)];
/// How long the shares are measured.
const SHARE_SECONDS: u64 = 40;

/// How our side is run.
#[derive(Debug, Clone, Copy)]
struct Setting {
    publishers: usize,
    consumers: usize,
    prefetch: u16,
}

#[tokio::main]
async fn main() {
    let python = PathBuf::from(std::env::args().nth(1).expect("usage: bench-queue PYTHON"));
    let broker = Rabbitmq::start();
    broker.make_virtual_host("bench");
    let services =
        hiresmed_services::connect(&Settings { queue: broker.settings("bench"), ..Settings::default() }).await;
    let queue = services.expect("a broker that was just started").queue;
    let (mut best, mut latency): (f64, f64) = (0.0, f64::INFINITY);
    for setting in SETTINGS {
        let rate = throughput(&queue, setting).await;
        println!("{setting:?}: {rate:.0} jobs/s");
        best = best.max(rate);
    }
    // The floor of a queue that keeps a message on the disk before it delivers it.
    let (p50, p99) = flushes();
    println!("a flush of 600 bytes to the broker's disk: p50 {p50:.2} ms, p99 {p99:.2} ms at {RATE}/s");
    // Before the peers and after them: the machine has other moods then.
    latency = latency.min(lowest_p99(&queue, "before").await);
    let peers = peers(&python, &broker);
    latency = latency.min(lowest_p99(&queue, "after").await);
    let error = fair_share_error().await;
    let of = |peer: &str, figure: &str| peers[peer][figure].as_f64().unwrap_or(f64::NAN);
    println!(
        "{}",
        json!({
            "jobs_per_s": best,
            "ratio_celery": best / of("celery", "jobs_per_s"),
            "ratio_dramatiq": best / of("dramatiq", "jobs_per_s"),
            "p99_ms": latency,
            "p99_celery_ms": of("celery", "p99_ms"),
            "p99_dramatiq_ms": of("dramatiq", "p99_ms"),
            "fair_share_error": error,
        })
    );
}

/// Durable messages a second, from the first publish to the last acknowledgement, while they are published and consumed.
async fn throughput(queue: &Arc<dyn Queue>, setting: Setting) -> f64 {
    let Setting { publishers, consumers, prefetch } = setting;
    let name = format!("throughput-{publishers}-{consumers}-{prefetch}");
    queue.declare(&Declaration::new(&name)).await.expect("the broker is there");
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..consumers {
        let mut consumer = queue.consume(&name, prefetch).await.expect("the queue is there");
        tasks.push(tokio::spawn(async move {
            // As a worker with several lanes does: the next message is taken while the last one is being acknowledged.
            let mut settling = tokio::task::JoinSet::new();
            for _ in 0..MESSAGES / consumers {
                settling.spawn(consumer.next().await.expect("a message").acknowledge());
                while let Some(settled) = settling.try_join_next() {
                    settled.expect("no panic").expect("it is ours");
                }
            }
            settling.join_all().await.into_iter().for_each(|settled| settled.expect("it is ours"));
            consumer.close().await.expect("the broker is there");
        }));
    }
    for publisher in 0..publishers {
        let (queue, name) = (queue.clone(), name.clone());
        tasks.push(tokio::spawn(async move {
            for batch in 0..MESSAGES / BATCH / publishers {
                let message = |number: usize| Message::new(format!("{publisher}-{batch}-{number}"), vec![b'x'; 256]);
                let messages = (0..BATCH).map(message).collect();
                let results = queue.publish_batch(&name, messages).await.expect("the broker is there");
                results.into_iter().for_each(|result| result.expect("confirmed"));
            }
        }));
    }
    for task in tasks {
        task.await.expect("a publisher or a consumer");
    }
    MESSAGES as f64 / started.elapsed().as_secs_f64()
}

/// The lowest 99th percentile of the settings' latencies.
async fn lowest_p99(queue: &Arc<dyn Queue>, when: &str) -> f64 {
    let mut lowest = f64::INFINITY;
    for prefetch in PREFETCH {
        let (p50, p99) = latencies(queue, &format!("latency-{when}-{prefetch}"), prefetch).await;
        println!("hiresmed, {when} the peers, prefetch {prefetch}: p50 {p50:.2} ms, p99 {p99:.2} ms at {RATE}/s");
        lowest = lowest.min(p99);
    }
    lowest
}

/// Median and 99th percentile of the milliseconds from the call that publishes a message to its delivery.
async fn latencies(queue: &Arc<dyn Queue>, name: &str, prefetch: u16) -> (f64, f64) {
    let name = name.to_owned();
    queue.declare(&Declaration::new(&name)).await.expect("the broker is there");
    let mut consumer = queue.consume(&name, prefetch).await.expect("the queue is there");
    let epoch = Instant::now();
    let count = (RATE * LATENCY_SECONDS) as usize;
    let receiving = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(count);
        for _ in 0..count {
            let delivery = consumer.next().await.expect("a message");
            let now = epoch.elapsed().as_nanos();
            let sent: u128 = delivery.message.id.parse().expect("our own id");
            latencies.push((now - sent) as f64 / 1e6);
            delivery.acknowledge().await.expect("it is ours");
        }
        latencies
    });
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut publishing = Vec::with_capacity(count);
    for _ in 0..count {
        tick.tick().await;
        let (queue, name) = (queue.clone(), name.clone());
        publishing.push(tokio::spawn(async move {
            let message = Message::new(epoch.elapsed().as_nanos().to_string(), vec![b'x'; 256]);
            queue.publish(&name, message).await.expect("confirmed");
        }));
    }
    for task in publishing {
        task.await.expect("a publisher");
    }
    percentiles(receiving.await.expect("the receiver"))
}

/// Median and 99th percentile of the milliseconds that an append to a file takes until it is on the disk.
fn flushes() -> (f64, f64) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let times = (0..RATE * LATENCY_SECONDS).map(|_| {
        std::thread::sleep(Duration::from_secs(1) / RATE);
        let started = Instant::now();
        file.write_all(&[b'x'; 600]).and_then(|()| file.sync_data()).expect("a disk");
        started.elapsed().as_secs_f64() * 1e3
    });
    percentiles(times.collect())
}

/// Median and 99th percentile.
fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.99))
}

/// What `tests/peers/bench_queue.py` says of Celery and Dramatiq at their best settings, on this broker.
fn peers(python: &PathBuf, broker: &Rabbitmq) -> Value {
    broker.make_virtual_host("peers");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/bench_queue.py");
    let output = Command::new(python)
        .arg(script)
        .args(["--amqp", &format!("amqp://guest:guest@{}/peers", broker.address())])
        .args(["--rate", &RATE.to_string(), "--seconds", &LATENCY_SECONDS.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .expect("the peers' Python");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success(), "the peers failed: {}", output.status);
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the peers end in a line of JSON")
}

/// The largest relative error of a site's share of worker-seconds, for three sites with weights 1, 2 and 4 whose jobs take
/// different times.
async fn fair_share_error() -> f64 {
    let (broker, redis, seaweed) = (Rabbitmq::start(), Redis::start(), Seaweed::start());
    broker.make_virtual_host("shares");
    let settings = Settings { queue: broker.settings("shares"), store: seaweed.fresh(), cache: redis.settings(0) };
    let program = std::env::current_exe().expect("this program").with_file_name("fleet-part");
    let fleet = Fleet::open(settings, program, &WEIGHTS.map(|(site, _)| site)).await;
    let sites = Sites::new(fleet.ledger.clone());
    let mut plans = Vec::new();
    for (number, (site, weight)) in WEIGHTS.into_iter().enumerate() {
        let settings = SiteSettings { weight, ..SiteSettings::default() };
        sites.put(&site.parse().expect("a site"), settings).await.expect("the store is there");
        // One, two or three images a job, of 50 ms each.
        let text = format!("count = {}\nchunk = {}\nclass = \"batch\"", 3000 * (number + 1), number + 1);
        plans.push((site, weight, fleet.submit(site, &text).await));
    }
    let _parts: Vec<_> = (0..4)
        .map(|number| fleet.start(&format!("worker-{number}"), "worker", 50))
        .chain(std::iter::once(fleet.start("coordinator", "coordinator", 0)))
        .collect();
    tokio::time::sleep(Duration::from_secs(SHARE_SECONDS)).await;
    let mut seconds: BTreeMap<&str, f64> = BTreeMap::new();
    for (site, _, plan) in &plans {
        let outcomes = fleet.ledger.outcomes(&plan.request).await.expect("the store is there");
        let done = outcomes.values().filter(|outcome| matches!(outcome.verdict, Verdict::Succeeded(_)));
        *seconds.entry(site).or_default() += done.map(|outcome| outcome.duration_ms as f64 / 1000.0).sum::<f64>();
    }
    let (total, weights): (f64, f64) = (seconds.values().sum(), WEIGHTS.iter().map(|(_, weight)| weight).sum());
    let errors = WEIGHTS.iter().map(|(site, weight)| {
        let (share, wanted) = (seconds[site] / total, weight / weights);
        println!(
            "site {site}, weight {weight}: {:.1} worker-seconds, {share:.4} of all (wanted {wanted:.4})",
            seconds[site]
        );
        (share - wanted).abs() / wanted
    });
    errors.fold(0.0, f64::max)
}
