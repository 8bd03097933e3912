//! `make soak JOBS=n`: no-op jobs through two coordinators and four workers while everything happens to them that the tests of
//! faults do one by one; the last line is one JSON object.
//!
//! `jobs` are those of requests that must succeed. Between them come requests whose first job kills its workers: that job has to
//! be given up and the others to be made.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hiresmed_protocol::{Outcome, Plan, Verdict, keys};
use hiresmed_services::{Settings, queue::Message};
use hiresmed_tests::{
    fleet::{Conditions, Fleet},
    proxy::{Fault, Proxy},
    servers::{Process, Rabbitmq, Redis, Seaweed},
};
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

/// Jobs of a request.
const EACH: u64 = 250;
/// Jobs of a request whose first one kills its workers.
const GUILTY: u64 = 4;
const SITES: [&str; 3] = ["north", "south", "west"];
const PARTS: [&str; 6] = ["coordinator-0", "coordinator-1", "worker-0", "worker-1", "worker-2", "worker-3"];
/// Requests that are open at a time.
const OPEN: usize = 6;
/// Without progress for so long, the rest is lost.
const PATIENCE: Duration = Duration::from_secs(180);
/// A worker's address space, KiB: a job that takes more dies, and not the machine.
const MEMORY_KIB: u64 = 2 << 20;

#[tokio::main]
async fn main() {
    let jobs: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("JOBS is a number"));
    let mut soak = Soak::start().await;
    let started = Instant::now();
    let mut submitted = 0;
    let (mut next_fault, mut progressed, mut last) = (Instant::now() + Duration::from_secs(3), Instant::now(), 0);
    while submitted < jobs || !soak.open.is_empty() {
        while submitted < jobs && soak.open.len() < OPEN {
            let count = EACH.min(jobs - submitted);
            soak.submit(None, count).await;
            submitted += count;
        }
        let settled = soak.settled().await;
        if settled != last {
            (last, progressed) = (settled, Instant::now());
        }
        if progressed.elapsed() > PATIENCE {
            eprintln!("no progress for {PATIENCE:?}: {:?} are open", soak.open);
            break;
        }
        soak.restart_what_ended();
        if Instant::now() >= next_fault {
            let what = soak.disturb().await;
            eprintln!("{:6.1} s: {last} jobs done; {what}", started.elapsed().as_secs_f64());
            *soak.faults.entry(what).or_default() += 1;
            next_fault = Instant::now() + Duration::from_millis(soak.random.random_range(2_000..8_000));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    let (mut lost, mut twice) = (0, 0);
    for (plan, guilty) in &soak.plans {
        let (missing, double) = soak.compare(plan, guilty.is_some()).await;
        lost += missing;
        twice += double;
    }
    let faults: u64 = soak.faults.values().sum();
    for (what, count) in &soak.faults {
        eprintln!("{count:4} x {what}");
    }
    println!(
        "{}",
        serde_json::json!({"jobs": jobs, "lost": lost, "visible_twice": twice, "faults": faults, "seconds": seconds})
    );
    if lost + twice > 0 {
        std::process::exit(1);
    }
}

/// A fleet, its servers, and what was asked of it.
struct Soak {
    broker: Rabbitmq,
    redis: Redis,
    /// Runs as long as this does.
    _store: Seaweed,
    /// What parts see of the broker and the store.
    to_broker: Arc<Proxy>,
    to_store: Arc<Proxy>,
    fleet: Fleet,
    parts: BTreeMap<&'static str, Process>,
    /// A worker that cannot write, until the next fault.
    full: Option<&'static str>,
    random: rand_chacha::ChaCha8Rng,
    /// With the name of those whose first job kills.
    plans: Vec<(Plan, Option<&'static str>)>,
    /// The places in `plans` of those that have not ended, with how many of their jobs have.
    open: BTreeMap<usize, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Soak {
    async fn start() -> Self {
        let program = std::env::current_exe().expect("this program").with_file_name("fleet-part");
        let (broker, redis, seaweed) = (Rabbitmq::start(), Redis::start(), Seaweed::start());
        broker.make_virtual_host("soak");
        let (to_broker, to_store) = (Proxy::start(&broker.address()), Proxy::start(seaweed.address()));
        let direct = Settings { queue: broker.settings("soak"), store: seaweed.fresh(), cache: redis.settings(0) };
        let mut fleet = Fleet::open(direct, program, &SITES).await;
        fleet.settings.queue.endpoint = format!("amqp://{}/soak", to_broker.address());
        fleet.settings.store.url = Some(format!("http://{}", to_store.address()));
        let mut soak = Self {
            broker,
            redis,
            _store: seaweed,
            to_broker: Arc::new(to_broker),
            to_store: Arc::new(to_store),
            fleet,
            parts: BTreeMap::new(),
            full: None,
            random: rand_chacha::ChaCha8Rng::seed_from_u64(1),
            plans: Vec::new(),
            open: BTreeMap::new(),
            faults: BTreeMap::new(),
        };
        for part in PARTS {
            soak.restart(part, Conditions::default());
        }
        soak
    }

    /// Kills a part, where it runs, and starts it.
    fn restart(&mut self, part: &'static str, conditions: Conditions) {
        // Dropped first: killed before its successor begins.
        self.parts.remove(part);
        let kind = part.split('-').next().unwrap_or_default();
        let conditions = Conditions { memory_kib: Some(MEMORY_KIB), ..conditions };
        self.parts.insert(part, self.fleet.start_under(&conditions, part, kind, 0));
    }

    /// As an orchestrator does.
    fn restart_what_ended(&mut self) {
        for part in PARTS {
            if self.parts.get_mut(part).is_none_or(Process::ended) {
                self.restart(part, Conditions::default());
            }
        }
    }

    /// One part of that kind.
    fn any(&mut self, kind: &str) -> &'static str {
        let parts: Vec<_> = PARTS.into_iter().filter(|part| part.starts_with(kind)).collect();
        parts[self.random.random_range(0..parts.len())]
    }

    async fn submit(&mut self, guilty: Option<&'static str>, count: u64) {
        let number = self.plans.len();
        let mut text = format!("count = {count}\nchunk = 1\nseed = {number}\nclass = \"batch\"");
        if let Some(name) = guilty {
            text += &format!("\nname = \"{name}\"");
        }
        let plan = self.fleet.submit(SITES[number % SITES.len()], &text).await;
        self.plans.push((plan, guilty));
        self.open.insert(number, 0);
    }

    /// How many jobs are settled, of all that were submitted.
    async fn settled(&mut self) -> u64 {
        for (number, settled) in &mut self.open {
            let keys = self.fleet.store().list(&keys::jobs(&self.plans[*number].0.request)).await.unwrap_or_default();
            *settled = keys.iter().filter(|key| key.ends_with("/done.json")).count() as u64;
        }
        self.open.retain(|number, settled| *settled < self.plans[*number].0.jobs.len() as u64);
        let over = self.plans.iter().enumerate().filter(|(number, _)| !self.open.contains_key(number));
        over.map(|(_, (plan, _))| plan.jobs.len() as u64).sum::<u64>() + self.open.values().sum::<u64>()
    }

    /// Does one of the things that happen to fleets, and says which.
    async fn disturb(&mut self) -> &'static str {
        if let Some(part) = self.full.take() {
            self.restart(part, Conditions::default());
        }
        match self.random.random_range(0..40) {
            0 => {
                self.broker.kill();
                self.broker.restart();
                "RabbitMQ killed and restarted"
            }
            1 => {
                self.broker.kill();
                self.broker.delete_data();
                self.broker.restart();
                self.broker.make_virtual_host("soak");
                "RabbitMQ's data deleted"
            }
            2 | 3 => {
                self.to_broker.cut();
                "connections to RabbitMQ cut"
            }
            4 => self.hold(false, Fault::Latency(Duration::from_millis(100)), "RabbitMQ slow"),
            5 => {
                self.redis.flush();
                "Redis flushed"
            }
            6 => {
                self.redis.kill();
                self.redis.restart();
                "Redis killed and restarted"
            }
            7 => self.hold(true, Fault::Refuse, "S3 refusing"),
            8 => self.hold(true, Fault::Latency(Duration::from_millis(100)), "S3 slow"),
            9 => {
                let answer = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                self.hold(true, Fault::Answer(answer.to_vec()), "S3 answering 503")
            }
            10 => self.hold(true, Fault::CutAfter(300), "S3 cut off after 300 bytes"),
            11 | 12 => self.deliver_again().await,
            13 => self.wrong("poison", "a job that kills its workers").await,
            14 => self.wrong("hungry", "a job that takes all memory").await,
            15 => {
                let part = self.any("worker");
                self.restart(part, Conditions { small_disk: true, ..Conditions::default() });
                self.full = Some(part);
                "a worker's disk full"
            }
            16 | 17 => {
                let part = self.any("");
                let skew = Some(if self.random.random_bool(0.5) { "+3600" } else { "-3600" });
                self.restart(part, Conditions { skew, ..Conditions::default() });
                "a part's clock wrong by an hour"
            }
            18..=22 => {
                let part = self.any("");
                let pid = self.parts.get(part).and_then(|process| Pid::from_raw(process.id().cast_signed()));
                // One that ended just now is not asked.
                let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
                "a part asked to stop"
            }
            23..=26 => {
                let part = self.any("coordinator");
                self.restart(part, Conditions::default());
                "a coordinator killed"
            }
            _ => {
                let part = self.any("worker");
                self.restart(part, Conditions::default());
                "a worker killed"
            }
        }
    }

    /// Does something to what passes to the store or the broker, for one to four seconds.
    fn hold(&mut self, store: bool, fault: Fault, what: &'static str) -> &'static str {
        let proxy = if store { self.to_store.clone() } else { self.to_broker.clone() };
        let time = Duration::from_millis(self.random.random_range(1_000..4_000));
        proxy.set(fault);
        if store {
            proxy.cut();
        }
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            proxy.set(Fault::Pass);
        });
        what
    }

    /// Publishes the first jobs of what is open once more.
    async fn deliver_again(&self) -> &'static str {
        for number in self.open.keys() {
            for job in self.plans[*number].0.jobs.iter().take(20) {
                let message = Message::new(job.id.as_str(), serde_json::to_vec(job).expect("a job"));
                // The broker may be away: then it did not happen.
                let _ = self.fleet.services.queue.publish(&job.queue(), message).await;
            }
        }
        "jobs delivered twice"
    }

    /// Submits a request whose first job kills its workers, one at a time.
    async fn wrong(&mut self, name: &'static str, what: &'static str) -> &'static str {
        if self.open.keys().any(|number| self.plans[*number].1.is_some()) {
            return "nothing: a job that kills is still there";
        }
        self.submit(Some(name), GUILTY).await;
        what
    }

    /// Jobs of a plan that did not end as they had to, and images that count more than once.
    async fn compare(&self, plan: &Plan, guilty: bool) -> (u64, u64) {
        let outcomes = self.fleet.ledger.outcomes(&plan.request).await.expect("the store is there");
        let mut lost = 0;
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for (place, job) in plan.jobs.iter().enumerate() {
            match outcomes.get(&job.id) {
                Some(Outcome { verdict: Verdict::Succeeded(success), .. }) if !(guilty && place == 0) => {
                    success.images.iter().for_each(|image| *seen.entry(image.index.0).or_default() += 1);
                }
                Some(Outcome { verdict: Verdict::Failed(failure), .. })
                    if guilty && place == 0 && failure.reason.contains("workers died") => {}
                other => {
                    eprintln!("{} of {}: {other:?}", job.id, plan.request);
                    lost += 1;
                }
            }
        }
        let wanted = u64::from(guilty)..plan.images();
        let missing = wanted.filter(|index| !seen.contains_key(index)).count() as u64;
        (lost.max(missing), seen.values().map(|count| count - 1).sum())
    }
}
