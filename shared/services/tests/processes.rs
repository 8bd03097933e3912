//! The embedded backends between processes: races, kills, stops. The program starts itself for every other process.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hiresmed_services::{
    queue::{Consumer, Declaration, Delivery, Message, Queue, Sqlite},
    store::{Directory, Put, Store},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{sleep, timeout};

type Test = (&'static str, fn(&Path));

const TESTS: [Test; 7] = [
    ("one_of_many_processes_creates", one_of_many_processes_creates),
    ("killed_writers_leave_no_partial_object", killed_writers_leave_no_partial_object),
    ("processes_share_a_queue", processes_share_a_queue),
    ("a_killed_consumer_loses_its_deliveries_promptly", a_killed_consumer_loses_its_deliveries_promptly),
    ("a_stopped_consumer_keeps_its_deliveries", a_stopped_consumer_keeps_its_deliveries),
    ("what_was_confirmed_survives_a_kill", what_was_confirmed_survives_a_kill),
    ("events_cross_processes", events_cross_processes),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [child, folder, argument] = &arguments[..]
        && let Some(role) = child.strip_prefix("child:")
    {
        return run(play(role, Path::new(folder), argument));
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    for (name, test) in TESTS.into_iter().filter(|(name, _)| chosen(name)) {
        let folder = tempfile::tempdir().expect("a folder");
        print!("test {name} ... ");
        std::io::stdout().flush().expect("stdout");
        test(folder.path());
        println!("ok");
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// What a child process does.
async fn play(role: &str, folder: &Path, argument: &str) {
    match role {
        "create" => create(folder, argument).await,
        "put" => put(folder, argument).await,
        "take" => take(folder).await,
        "hold" => hold(folder).await,
        "publish" => publish(folder).await,
        "tell" => {
            let queue = open_queue(folder).await;
            queue.publish_event("a.b", Bytes::from(argument.to_owned())).await.expect("publish");
            queue.broadcast(Bytes::from_static(b"drain")).await.expect("broadcast");
        }
        other => panic!("no role {other}"),
    }
}

/// A child process; killed when the test is over.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, folder: &Path, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args([&format!("child:{role}"), &folder.display().to_string(), argument])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("readable")
    }

    /// Everything that it still says, until it ends by itself.
    fn rest(mut self) -> Vec<String> {
        let lines = self.lines.by_ref().map(|line| line.expect("readable")).collect();
        assert!(self.child.wait().expect("wait").success());
        lines
    }

    fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("stdout");
}

const KEYS: usize = 60;

fn one_of_many_processes_creates(folder: &Path) {
    let mut processes: Vec<Process> =
        (0..5).map(|number| Process::start("create", folder, &number.to_string())).collect();
    for process in &mut processes {
        assert_eq!(process.line(), "ready");
    }
    std::fs::write(folder.join("go"), "").expect("go");
    let mut winners: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, process) in processes.into_iter().enumerate() {
        for key in process.rest() {
            winners.entry(key).or_default().push(number);
        }
    }
    assert_eq!(winners.len(), KEYS);
    let store = Directory::open(folder.join("store")).expect("open");
    for (key, numbers) in winners {
        assert_eq!(numbers.len(), 1, "{key} was created by {numbers:?}");
        let content = run(store.get(&key)).expect("get");
        assert_eq!(content, numbers[0].to_string(), "{key}");
    }
}

async fn create(folder: &Path, number: &str) {
    let store = Directory::open(folder.join("store")).expect("open");
    say("ready");
    while !folder.join("go").exists() {
        std::hint::spin_loop();
    }
    for index in 0..KEYS {
        let key = format!("jobs/{index}/done.json");
        if store.put_if_absent(&key, Bytes::from(number.to_owned())).await.expect("put") == Put::Created {
            say(key);
        }
    }
}

fn killed_writers_leave_no_partial_object(folder: &Path) {
    let root = folder.join("store");
    for round in 0..20_u64 {
        let mut process = Process::start("put", folder, &round.to_string());
        assert_eq!(process.line(), "ready");
        // Anywhere within the first few writes.
        std::thread::sleep(Duration::from_micros(round.wrapping_mul(7919) % 31 * 1000));
        process.kill();
        let store = Directory::open(&root).expect("open");
        for key in run(store.list("")).expect("list") {
            let content = run(store.get(&key)).unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert!(content.iter().all(|byte| *byte == content[0]), "round {round}: {key} is mixed");
        }
        let left = std::fs::read_dir(root.join(".partial")).expect("list").count();
        assert_eq!(left, 0, "round {round}: abandoned files stay");
    }
    let store = Directory::open(&root).expect("open");
    assert!(!run(store.list("")).expect("list").is_empty(), "no write ever finished: the test tests nothing");
}

async fn put(folder: &Path, round: &str) {
    let store = Directory::open(folder.join("store")).expect("open");
    say("ready");
    for number in 0_u64.. {
        let content = Bytes::from(vec![number as u8; 600_000]);
        store.put("same", content.clone()).await.expect("put");
        store.put_if_absent(&format!("new/{round}-{number}"), content).await.expect("put");
    }
}

async fn open_queue(folder: &Path) -> Sqlite {
    let queue = Sqlite::open(folder.join("queue.sqlite")).expect("open");
    queue.declare(&Declaration::new("q")).await.expect("declare");
    queue
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(Duration::from_secs(30), consumer.next()).await.expect("in time").expect("next")
}

fn processes_share_a_queue(folder: &Path) {
    let queue = run(open_queue(folder));
    let messages = (0..300).map(|number| Message::new(format!("m{number}"), "x")).collect();
    run(queue.publish_batch("q", messages)).expect("publish");
    let processes: Vec<Process> = (0..3).map(|_| Process::start("take", folder, "")).collect();
    let taken: Vec<String> = processes.into_iter().flat_map(Process::rest).collect();
    assert_eq!(taken.len(), 300);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), 300, "a message was delivered twice");
    let depth = run(queue.depth("q")).expect("depth");
    assert_eq!((depth.ready, depth.unacknowledged), (0, Some(0)));
}

async fn take(folder: &Path) {
    let queue = open_queue(folder).await;
    let mut consumer = queue.consume("q", 4).await.expect("consume");
    while let Ok(delivery) = timeout(Duration::from_secs(2), consumer.next()).await {
        let delivery = delivery.expect("next");
        let id = delivery.message.id.clone();
        delivery.acknowledge().await.expect("acknowledge");
        say(id);
    }
}

fn a_killed_consumer_loses_its_deliveries_promptly(folder: &Path) {
    run(async {
        let queue = open_queue(folder).await;
        for number in 0..2 {
            queue.publish("q", Message::new(format!("m{number}"), "x")).await.expect("publish");
        }
        let mut process = Process::start("hold", folder, "");
        assert_eq!([process.line(), process.line()], ["m0 0", "m1 0"]);
        let mut consumer = queue.consume("q", 2).await.expect("consume");
        assert!(timeout(Duration::from_millis(400), consumer.next()).await.is_err(), "they are the other's");
        process.kill();
        let killed = Instant::now();
        for id in ["m0", "m1"] {
            let delivery = next(&mut consumer).await;
            assert_eq!((delivery.message.id.as_str(), delivery.delivery_count), (id, 1));
            delivery.acknowledge().await.expect("acknowledge");
        }
        assert!(killed.elapsed() < Duration::from_secs(5), "it took {:?}", killed.elapsed());
    });
}

async fn hold(folder: &Path) {
    let queue = open_queue(folder).await;
    let mut consumer = queue.consume("q", 2).await.expect("consume");
    let mut held = Vec::new();
    for _ in 0..2 {
        let delivery = next(&mut consumer).await;
        say(format!("{} {}", delivery.message.id, delivery.delivery_count));
        held.push(delivery);
    }
    while !folder.join("settle").exists() {
        sleep(Duration::from_millis(20)).await;
    }
    for delivery in held {
        delivery.acknowledge().await.expect("still ours");
    }
    say("settled");
}

fn a_stopped_consumer_keeps_its_deliveries(folder: &Path) {
    run(async {
        let queue = open_queue(folder).await;
        for number in 0..2 {
            queue.publish("q", Message::new(format!("m{number}"), "x")).await.expect("publish");
        }
        let mut process = Process::start("hold", folder, "");
        process.line();
        process.line();
        process.signal(Signal::STOP);
        let mut consumer = queue.consume("q", 2).await.expect("consume");
        let redelivered = timeout(Duration::from_secs(1), consumer.next()).await.is_ok();
        process.signal(Signal::CONT);
        assert!(!redelivered, "a process that sleeps is not dead");
        std::fs::write(folder.join("settle"), "").expect("settle");
        assert_eq!(process.line(), "settled");
        assert_eq!(queue.depth("q").await.expect("depth").ready, 0);
    });
}

fn what_was_confirmed_survives_a_kill(folder: &Path) {
    let queue = run(open_queue(folder));
    let mut confirmed = BTreeSet::new();
    for round in 0..8_u64 {
        let mut process = Process::start("publish", folder, "");
        confirmed.insert(process.line());
        std::thread::sleep(Duration::from_millis(round * 13 % 40));
        process.kill();
        confirmed.extend(process.lines.by_ref().map_while(Result::ok));
    }
    run(async {
        let mut consumer = queue.consume("q", u16::MAX).await.expect("consume");
        let ready = queue.depth("q").await.expect("depth").ready;
        let mut found = BTreeSet::new();
        for _ in 0..ready {
            let delivery = next(&mut consumer).await;
            assert!(found.insert(delivery.message.id.clone()), "{} is there twice", delivery.message.id);
        }
        let lost: Vec<&String> = confirmed.difference(&found).collect();
        assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
        assert!(found.len() <= confirmed.len() + 8, "at most the message of each kill may be there unconfirmed");
    });
}

async fn publish(folder: &Path) {
    let queue = open_queue(folder).await;
    for number in 0.. {
        let id = format!("{}-{number}", std::process::id());
        queue.publish("q", Message::new(id.clone(), "x")).await.expect("publish");
        say(id);
    }
}

fn events_cross_processes(folder: &Path) {
    run(async {
        let queue = open_queue(folder).await;
        let mut events = queue.subscribe("a.*").await.expect("subscribe");
        let mut control = queue.listen().await.expect("listen");
        let process = Process::start("tell", folder, "hello");
        let event = timeout(Duration::from_secs(30), events.next()).await.expect("in time").expect("next");
        assert_eq!((event.topic.as_str(), &event.payload[..]), ("a.b", &b"hello"[..]));
        let order = timeout(Duration::from_secs(30), control.next()).await.expect("in time").expect("next");
        assert_eq!(order.payload, "drain");
        process.rest();
    });
}
