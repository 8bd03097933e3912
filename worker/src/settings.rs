//! A worker's settings: defaults, then a TOML file, then the environment, then flags.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use hiresmed_inference::Provider;
use hiresmed_protocol::job::{Kind, queue};
use hiresmed_telemetry::logging;
use serde::Deserialize;

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The three services.
    pub services: hiresmed_services::Settings,
    /// Where health and metrics are served. The default is for this machine only.
    pub listen: SocketAddr,
    /// The worker's name in records and events; its host and process without.
    pub name: Option<String>,
    /// The disk cache of models and data; it may be lost at any time.
    pub scratch: PathBuf,
    /// Jobs at a time. One keeps a device busy: the images of a job share it.
    pub permits: u16,
    /// Threads that computations use; as many as there are cores without.
    pub threads: Option<usize>,
    /// Where networks run: `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// MiB of host memory that networks may take for what they compute with; as much as there is without. What does not fit is
    /// tried again with fewer images at a time.
    pub memory_mib: Option<usize>,
    /// What is logged, to standard error.
    pub log: logging::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            services: hiresmed_services::Settings::default(),
            listen: (Ipv4Addr::LOCALHOST, 8421).into(),
            name: None,
            scratch: PathBuf::from("state/scratch"),
            permits: 1,
            threads: None,
            device: "cpu".to_owned(),
            memory_mib: None,
            log: logging::Settings::default(),
        }
    }
}

impl Settings {
    /// Where networks run.
    ///
    /// # Errors
    /// The text is no device; it says what is.
    pub fn provider(&self) -> Result<Provider, String> {
        self.device.parse()
    }

    /// Threads that computations use.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// The name in records and events: host and process, where none is set.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = if host.trim().is_empty() { "worker" } else { host.trim() };
            format!("{host}/{}", std::process::id())
        })
    }
}

/// The queues of a program for jobs of `kind`, in the order in which they are looked at: those for which somebody waits first.
/// A program that makes images finds candidates too, and first: they take a second, and a person looks on.
pub fn queues(kind: Kind) -> Vec<String> {
    let quick = if kind == Kind::Synthesise { Some(Kind::Candidates) } else { None };
    let kinds = quick.into_iter().chain([kind]);
    kinds.flat_map(|kind| kind.classes().iter().map(move |class| queue(kind, *class))).collect()
}

/// Settings by flag or environment variable; each wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Where health and metrics are served, as 127.0.0.1:8421
    #[arg(long, env = "HIRESMED_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The queue: `sqlite:PATH`, `amqp://HOST[:PORT][/VHOST]`
    #[arg(long, env = "HIRESMED_QUEUE", value_name = "ENDPOINT")]
    pub queue: Option<String>,
    /// The store: `directory:PATH`, `s3://BUCKET[/PREFIX]`
    #[arg(long, env = "HIRESMED_STORE", value_name = "ENDPOINT")]
    pub store: Option<String>,
    /// The cache: `memory:BYTES`, `redis://HOST[:PORT][/DATABASE]`, `none`
    #[arg(long, env = "HIRESMED_CACHE", value_name = "ENDPOINT")]
    pub cache: Option<String>,
    /// The worker's name in records and events
    #[arg(long, env = "HIRESMED_WORKER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// The disk cache of models and data
    #[arg(long, env = "HIRESMED_SCRATCH", value_name = "FOLDER")]
    pub scratch: Option<PathBuf>,
    /// Jobs at a time
    #[arg(long, env = "HIRESMED_PERMITS", value_name = "JOBS")]
    pub permits: Option<u16>,
    /// Threads that computations use
    #[arg(long, env = "HIRESMED_THREADS", value_name = "THREADS")]
    pub threads: Option<usize>,
    /// Where networks run: cpu, cuda, cuda:N
    #[arg(long, env = "HIRESMED_DEVICE", value_name = "DEVICE")]
    pub device: Option<String>,
    /// MiB of host memory that networks may take
    #[arg(long, env = "HIRESMED_MEMORY_MIB", value_name = "MIB")]
    pub memory_mib: Option<usize>,
    /// What is logged: a level, or levels by target
    #[arg(long, env = "HIRESMED_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl Overrides {
    /// Lays what is set over `settings`.
    pub fn apply(self, settings: &mut Settings) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        let services = &mut settings.services;
        set(&mut services.queue.endpoint, self.queue);
        set(&mut services.store.endpoint, self.store);
        set(&mut services.cache.endpoint, self.cache);
        set(&mut settings.listen, self.listen);
        set(&mut settings.scratch, self.scratch);
        set(&mut settings.permits, self.permits);
        set(&mut settings.device, self.device);
        set(&mut settings.log.filter, self.log);
        settings.name = self.name.or(settings.name.take());
        settings.memory_mib = self.memory_mib.or(settings.memory_mib);
        settings.threads = self.threads.or(settings.threads);
    }
}

#[cfg(test)]
mod tests {
    use hiresmed_services::settings::read;

    use super::*;

    #[test]
    fn a_file_lies_over_the_defaults_and_flags_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, "permits = 3\ndevice = \"cuda:1\"\n[services.cache]\nendpoint = \"none\"\n").unwrap();
        let mut settings = read::<Settings>(Some(&path)).unwrap();
        Overrides { permits: Some(2), ..Overrides::default() }.apply(&mut settings);
        assert_eq!((settings.permits, settings.services.cache.endpoint.as_str()), (2, "none"));
        assert_eq!(settings.provider(), Ok(Provider::Cuda { device: 1 }));
        assert!(settings.listen.ip().is_loopback());
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, "permit = 3\n").unwrap();
        let error = read::<Settings>(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("permit") && error.contains("worker.toml"), "{error}");
    }

    #[test]
    fn those_for_whom_somebody_waits_come_first() {
        let synthesis = ["candidates.interactive", "synthesis.interactive", "synthesis.batch"];
        assert_eq!(queues(Kind::Synthesise), synthesis);
        assert_eq!(queues(Kind::TrainRound), ["training.interactive", "training.batch"]);
    }
}
