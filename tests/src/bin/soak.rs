//! `make soak JOBS=n`: no-op jobs through two coordinators and four workers while parts and servers are killed at random; the last
//! line is one JSON object.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hiresmed_protocol::{Plan, RequestId, Verdict, keys};
use hiresmed_services::Settings;
use hiresmed_tests::{
    fleet::Fleet,
    servers::{Process, Rabbitmq, Redis, Seaweed},
};
use rand::{Rng, RngExt, SeedableRng};

/// Jobs of a request.
const EACH: u64 = 250;
const SITES: [&str; 3] = ["north", "south", "west"];
const COORDINATORS: usize = 2;
const WORKERS: usize = 4;
/// Requests that are open at a time.
const OPEN: usize = 6;
/// Without progress for so long, the rest is lost.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() {
    let jobs: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("JOBS is a number"));
    let program = std::env::current_exe().expect("this program").with_file_name("fleet-part");
    let (broker, redis, seaweed) = (Rabbitmq::start(), Redis::start(), Seaweed::start());
    broker.make_virtual_host("soak");
    let settings = Settings { queue: broker.settings("soak"), store: seaweed.fresh(), cache: redis.settings(0) };
    let fleet = Fleet::open(settings, program, &SITES).await;
    let mut parts: BTreeMap<String, Process> = BTreeMap::new();
    for (part, count) in [("coordinator", COORDINATORS), ("worker", WORKERS)] {
        for number in 0..count {
            let name = format!("{part}-{number}");
            let process = fleet.start(&name, part, 0);
            parts.insert(name, process);
        }
    }
    let (started, mut faults) = (Instant::now(), 0u64);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let mut plans: Vec<Plan> = Vec::new();
    let (mut open, mut submitted): (Vec<(RequestId, u64)>, u64) = (Vec::new(), 0);
    let (mut next_fault, mut progressed, mut last) = (Instant::now() + Duration::from_secs(3), Instant::now(), 0);
    while submitted < jobs || !open.is_empty() {
        while submitted < jobs && open.len() < OPEN {
            let count = EACH.min(jobs - submitted);
            let site = SITES[plans.len() % SITES.len()];
            let text = format!("count = {count}\nchunk = 1\nseed = {}\nclass = \"batch\"", plans.len());
            let plan = fleet.submit(site, &text).await;
            open.push((plan.request.clone(), count));
            submitted += count;
            plans.push(plan);
        }
        let (mut done, mut still) = (submitted, Vec::new());
        for (id, jobs) in open {
            let left = jobs - settled(&fleet, &id).await.min(jobs);
            done -= left;
            if left > 0 {
                still.push((id, jobs));
            }
        }
        open = still;
        if done != last {
            (last, progressed) = (done, Instant::now());
        }
        if progressed.elapsed() > PATIENCE {
            eprintln!("no progress for {PATIENCE:?}");
            break;
        }
        if Instant::now() >= next_fault {
            let what = disturb(&fleet, &mut parts, &broker, &redis, &mut random);
            faults += 1;
            eprintln!("{:6.1} s: {last} of {jobs} jobs done; {what}", started.elapsed().as_secs_f64());
            next_fault = Instant::now() + Duration::from_millis(random.random_range(2_000..8_000));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (mut lost, mut twice) = (0, 0);
    for plan in &plans {
        let (missing, double) = compare(&fleet, plan).await;
        lost += missing;
        twice += double;
    }
    println!(
        "{}",
        serde_json::json!({"jobs": jobs, "lost": lost, "visible_twice": twice, "faults": faults, "seconds": seconds})
    );
    if lost + twice > 0 {
        std::process::exit(1);
    }
}

/// How many jobs of a request are settled; none where the store does not say.
async fn settled(fleet: &Fleet, id: &RequestId) -> u64 {
    let keys = fleet.store().list(&keys::jobs(id)).await.unwrap_or_default();
    keys.iter().filter(|key| key.ends_with("/done.json")).count() as u64
}

/// Does one of the things that happen to fleets, and says which.
fn disturb(
    fleet: &Fleet,
    parts: &mut BTreeMap<String, Process>,
    broker: &Rabbitmq,
    redis: &Redis,
    random: &mut impl Rng,
) -> String {
    match random.random_range(0..20) {
        0 => {
            broker.kill();
            broker.restart();
            "RabbitMQ was killed and restarted".to_owned()
        }
        1 => {
            broker.kill();
            broker.delete_data();
            broker.restart();
            broker.make_virtual_host("soak");
            "RabbitMQ lost its data".to_owned()
        }
        2 | 3 => {
            redis.flush();
            "Redis was flushed".to_owned()
        }
        4 => {
            redis.kill();
            redis.restart();
            "Redis was killed and restarted".to_owned()
        }
        n => {
            let part = if n < 8 { "coordinator" } else { "worker" };
            let names: Vec<String> = parts.keys().filter(|name| name.starts_with(part)).cloned().collect();
            let name = names[random.random_range(0..names.len())].clone();
            // Dropped first: killed before its successor begins.
            parts.remove(&name);
            parts.insert(name.clone(), fleet.start(&name, part, 0));
            format!("{name} was killed and restarted")
        }
    }
}

/// Jobs of a plan without a successful outcome, and images that count more than once.
async fn compare(fleet: &Fleet, plan: &Plan) -> (u64, u64) {
    let outcomes = fleet.ledger.outcomes(&plan.request).await.expect("the store is there");
    let succeeded = |outcome: &hiresmed_protocol::Outcome| match &outcome.verdict {
        Verdict::Succeeded(success) => success.images.iter().map(|image| image.index.0).collect(),
        _ => Vec::new(),
    };
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for outcome in outcomes.values() {
        succeeded(outcome).into_iter().for_each(|index| *seen.entry(index).or_default() += 1);
    }
    let lost = (0..plan.images()).filter(|index| !seen.contains_key(index)).count() as u64;
    (lost, seen.values().map(|count| count - 1).sum())
}
