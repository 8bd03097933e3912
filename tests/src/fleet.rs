//! A fleet of processes on private servers: parts are started and killed, requests submitted and compared with their plans.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use hiresmed_coordinator::{Ledger, Planner, delivery};
use hiresmed_protocol::{Attempt, Digest, Plan, RequestId, SiteId, parse};
use hiresmed_services::{Services, Settings, store::Store};
use secrecy::ExposeSecret;

use crate::{imitation, servers::Process};

/// Services and a folder for the settings, logs and scratch of parts.
pub struct Fleet {
    /// What parts are told.
    pub settings: Settings,
    /// The same services, for the test itself.
    pub services: Services,
    /// The documents.
    pub ledger: Ledger,
    /// An OpenTelemetry collector for the parts that are started from now on.
    pub collector: Option<String>,
    folder: tempfile::TempDir,
    program: PathBuf,
}

/// What a part has to live with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// At most so many KiB of address space, beyond which the system lets the process die.
    pub memory_kib: Option<u64>,
    /// A disk of a few KiB under its scratch folder.
    pub small_disk: bool,
    /// A clock that is wrong by so many seconds, as `+3600`.
    pub skew: Option<&'static str>,
}

impl Fleet {
    /// A fleet without parts over the services of `settings`, furnished for `sites`; `program` is `fleet-part`.
    pub async fn open(settings: Settings, program: impl Into<PathBuf>, sites: &[&str]) -> Self {
        let services = hiresmed_services::connect(&settings).await.expect("the services are there");
        for site in sites {
            imitation::furnish(&*services.store, &site.parse().expect("a site")).await.expect("the store is there");
        }
        let ledger = Ledger::new(services.store.clone());
        let folder = tempfile::Builder::new().prefix("hiresmed-fleet-").tempdir().expect("a temporary folder");
        Self { settings, services, ledger, collector: None, folder, program: program.into() }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.services.store
    }

    /// Starts a part called `name`: `coordinator`, or `worker` taking so many milliseconds an image.
    pub fn start(&self, name: &str, part: &str, milliseconds: u64) -> Process {
        self.start_under(&Conditions::default(), name, part, milliseconds)
    }

    /// As [`Fleet::start`], where not all is well.
    pub fn start_under(&self, conditions: &Conditions, name: &str, part: &str, milliseconds: u64) -> Process {
        let Conditions { memory_kib, small_disk, skew } = conditions;
        let mut line: Vec<String> = Vec::new();
        let mut wrap = |words: &[&str]| line.extend(words.iter().map(|&word| word.to_owned()));
        if *small_disk {
            let scratch = self.scratch(name);
            std::fs::create_dir_all(&scratch).expect("a temporary folder");
            // A mount that only this process and its children see; it goes with them.
            let root = rustix::process::getuid().is_root();
            wrap(if root { &["unshare", "--mount"] } else { &["unshare", "--mount", "--map-root-user"] });
            let mount = r#"mount -t tmpfs -o size=4k tmpfs "$1" || exit 1; shift; exec "$@""#;
            wrap(&["sh", "-c", mount, "small", &scratch.to_string_lossy()]);
        }
        if let Some(limit) = memory_kib {
            wrap(&["sh", "-c", r#"ulimit -v "$1"; shift; exec "$@""#, "limited", &limit.to_string()]);
        }
        if let Some(skew) = skew {
            let library = format!("LD_PRELOAD={}", faketime().display());
            // Waits are counted by another clock, which goes right everywhere.
            wrap(&["env", &library, &format!("FAKETIME={skew}"), "DONT_FAKE_MONOTONIC=1"]);
        }
        wrap(&[
            &self.program.to_string_lossy(),
            part,
            &self.configure(name).to_string_lossy(),
            &milliseconds.to_string(),
        ]);
        let mut command = Command::new(&line[0]);
        Process::start(command.args(&line[1..]), &self.log(name), None)
    }

    /// Starts the real trainer, on one thread, as `name`; the work is real as well.
    pub fn start_trainer(&self, name: &str) -> Process {
        let libraries = std::env::var_os("HIRESMED_RUNTIMES").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runtimes/libtorch/lib"),
            |folder| Path::new(&folder).join("libtorch/lib"),
        );
        let mut command = Command::new(trainer());
        command.args(["work", "--threads", "1", "--config"]).arg(self.configure(name));
        command.env("LD_LIBRARY_PATH", libraries);
        Process::start(&mut command, &self.log(name), None)
    }

    /// The file with the settings of a part called `name`.
    fn configure(&self, name: &str) -> PathBuf {
        let config = self.folder.path().join(format!("{name}.toml"));
        let mut text = format!("name = {name:?}\n") + &text(&self.settings, &self.scratch(name));
        text += "[log]\nhuman = true\n";
        text += &self.collector.as_ref().map(|url| format!("otlp = {url:?}\n")).unwrap_or_default();
        std::fs::write(&config, text).expect("a temporary folder");
        config
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}-scratch"))
    }

    /// Where a part's log is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Records a request of `site` for images and marks it open; `text` is TOML without version and kind.
    pub async fn submit(&self, site: &str, text: &str) -> Plan {
        self.submit_any(site, &format!("kind = \"synthesise\"\n{text}")).await
    }

    /// Records a request of `site` and marks it open; `text` is TOML without version.
    pub async fn submit_any(&self, site: &str, text: &str) -> Plan {
        let site: SiteId = site.parse().expect("a site");
        let request = parse::toml(&format!("version = 1\n{text}")).expect("a request");
        let plan = Planner::new(self.ledger.clone(), site.clone()).submit(&request).await.expect("a plan");
        self.ledger.open(&site, &plan.request).await.expect("the store is there");
        plan
    }

    /// Waits until a request is over, however it ended, and gives the digest of each image by index.
    ///
    /// # Panics
    /// As [`Fleet::end`].
    pub async fn finish(&self, id: &RequestId, most: Duration) -> BTreeMap<u64, Digest> {
        self.end(id, most).await;
        self.images(id).await
    }

    /// Waits until a request is over, however it ended.
    ///
    /// # Panics
    /// When it takes longer than `most`: with where it stands.
    pub async fn end(&self, id: &RequestId, most: Duration) {
        let deadline = Instant::now() + most;
        loop {
            // The store may be one that is disturbed.
            if let Ok(status) = hiresmed_coordinator::status::of(&self.ledger, id).await {
                if status.is_over() {
                    break;
                }
                assert!(Instant::now() < deadline, "after {most:?}: {status:?}\n{}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of each part's log.
    fn last_words(&self) -> String {
        let entries = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "log"));
        let tails = logs.map(|path| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!("{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
        });
        tails.collect()
    }

    /// Every attempt at a job of a request.
    pub async fn attempts(&self, id: &RequestId) -> Vec<Attempt> {
        let plan = self.ledger.plan(id).await.expect("the store is there").expect("a plan");
        let mut attempts = Vec::new();
        for job in &plan.jobs {
            attempts.extend(self.ledger.attempts(id, &job.id).await.expect("the store is there"));
        }
        attempts
    }

    /// The digest of each image that counts, by index.
    ///
    /// # Panics
    /// When an image counts twice.
    pub async fn images(&self, id: &RequestId) -> BTreeMap<u64, Digest> {
        let delivery = delivery::assemble(&self.ledger, id).await.expect("the store is there").expect("a synthesis");
        let mut images = BTreeMap::new();
        for image in &delivery.manifest.images {
            assert_eq!(images.insert(image.index.0, image.sha256), None, "image {} counts twice", image.index);
        }
        images
    }
}

/// The trainer, built beside the program that runs.
fn trainer() -> PathBuf {
    let own = std::env::current_exe().expect("a program has a path");
    let path = own.ancestors().nth(2).expect("target/debug/deps").join("hiresmed-trainer");
    let build = "cargo test --workspace --features hiresmed-worker/training --test trainer";
    assert!(path.is_file(), "{} is not there: `{build}` builds it", path.display());
    path
}

/// The library that shows a process a wrong time.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let library = folders.map(|folder| folder.join("faketime/libfaketime.so.1")).find(|path| path.is_file());
    library.expect("this test needs libfaketime: run tests/tools/install (Debian: apt-get install faketime)")
}

/// A part's settings in TOML.
fn text(settings: &Settings, scratch: &Path) -> String {
    let quoted = |text: &str| format!("{text:?}");
    let mut text = format!("listen = \"127.0.0.1:0\"\nscratch = {}\n", quoted(&scratch.to_string_lossy()));
    let queue = &settings.queue;
    text += &format!("[services.queue]\nendpoint = {}\nuser = {}\n", quoted(&queue.endpoint), quoted(&queue.user));
    if let Some(password) = &queue.password {
        text += &format!("password = {}\n", quoted(password.expose_secret()));
    }
    let store = &settings.store;
    text += &format!("[services.store]\nendpoint = {}\npath_style = {}\n", quoted(&store.endpoint), store.path_style);
    let optional = [("url", &store.url), ("region", &store.region), ("access_key_id", &store.access_key_id)];
    for (name, value) in optional {
        text += &value.as_ref().map(|value| format!("{name} = {}\n", quoted(value))).unwrap_or_default();
    }
    if let Some(secret) = &store.secret_access_key {
        text += &format!("secret_access_key = {}\n", quoted(secret.expose_secret()));
    }
    text += &format!("[services.cache]\nendpoint = {}\n", quoted(&settings.cache.endpoint));
    if let Some(password) = &settings.cache.password {
        text += &format!("password = {}\n", quoted(password.expose_secret()));
    }
    text
}
