//! The coordinator's settings: defaults, then a TOML file, then the environment, then flags.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use hiresmed_telemetry::logging;
use serde::Deserialize;

use crate::{dispatcher::Options, http::Limits};

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the API listens. The default is for this machine only; elsewhere set `tls` too.
    pub listen: SocketAddr,
    /// The certificate and key of the API; none means plain HTTP, for loopback or behind a proxy.
    pub tls: Option<Tls>,
    /// The three services.
    pub services: hiresmed_services::Settings,
    /// Bounds on what a call may take.
    pub limits: Limits,
    /// How jobs are kept in flight.
    pub dispatch: Dispatch,
    /// What is logged.
    pub log: logging::Settings,
    /// Longest wait for calls in progress when the coordinator is asked to stop, in seconds.
    pub shutdown_s: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8420).into(),
            tls: None,
            services: hiresmed_services::Settings::default(),
            limits: Limits::default(),
            dispatch: Dispatch::default(),
            log: logging::Settings::default(),
            shutdown_s: 20,
        }
    }
}

/// TLS by files in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Where it is set, callers need a certificate of one of these authorities (mutual TLS), besides their API key.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
}

/// How jobs are kept in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dispatch {
    /// At most so many jobs of a queue are in flight, of all sites together.
    pub window: usize,
    /// At most so many images of an unbounded request are made ahead of its slowest reader; one job at least.
    pub ahead: u64,
}

impl Default for Dispatch {
    fn default() -> Self {
        let Options { window, ahead, .. } = Options::default();
        Self { window, ahead }
    }
}

/// Settings by flag or environment variable; each wins over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Where the API listens, as 127.0.0.1:8420
    #[arg(long, global = true, env = "HIRESMED_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The queue: sqlite:PATH, amqp://HOST:PORT/VHOST
    #[arg(long, global = true, env = "HIRESMED_QUEUE", value_name = "ENDPOINT")]
    pub queue: Option<String>,
    /// The store: directory:PATH, s3://BUCKET/PREFIX
    #[arg(long, global = true, env = "HIRESMED_STORE", value_name = "ENDPOINT")]
    pub store: Option<String>,
    /// The cache: memory:BYTES, redis://HOST:PORT/DATABASE, none
    #[arg(long, global = true, env = "HIRESMED_CACHE", value_name = "ENDPOINT")]
    pub cache: Option<String>,
    /// The certificate of the API, PEM
    #[arg(long, global = true, env = "HIRESMED_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, global = true, env = "HIRESMED_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Authorities whose certificates callers need, PEM
    #[arg(
        long,
        global = true,
        env = "HIRESMED_TLS_CLIENT_AUTHORITIES",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub tls_client_authorities: Option<PathBuf>,
    /// What is logged: a level, or levels by target
    #[arg(long, global = true, env = "HIRESMED_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl Overrides {
    /// Lays what is set over `settings`.
    pub fn apply(self, settings: &mut Settings) {
        let services = &mut settings.services;
        set(&mut settings.listen, self.listen);
        set(&mut services.queue.endpoint, self.queue);
        set(&mut services.store.endpoint, self.store);
        set(&mut services.cache.endpoint, self.cache);
        set(&mut settings.log.filter, self.log);
        if let (Some(certificate), Some(key)) = (self.tls_certificate, self.tls_key) {
            let client_authorities = self.tls_client_authorities;
            settings.tls = Some(Tls { certificate, key, client_authorities });
        }
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

#[cfg(test)]
mod tests {
    use hiresmed_services::settings::read;

    use super::*;

    #[test]
    fn a_file_lies_over_the_defaults_and_flags_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coordinator.toml");
        let text = "listen = \"127.0.0.1:1\"\n[services.store]\nendpoint = \"directory:/a\"\n[limits]\nanswer_s = 5\n";
        std::fs::write(&path, text).unwrap();
        let mut settings = read::<Settings>(Some(&path)).unwrap();
        assert_eq!((settings.limits.answer_s, settings.limits.idle_s), (5, 30));
        let overrides = Overrides { store: Some("directory:/b".to_owned()), ..Overrides::default() };
        overrides.apply(&mut settings);
        assert_eq!(settings.listen.port(), 1);
        assert_eq!(settings.services.store.endpoint, "directory:/b");
        assert!(settings.listen.ip().is_loopback() && Settings::default().listen.ip().is_loopback());
    }

    #[test]
    fn unknown_keys_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coordinator.toml");
        std::fs::write(&path, "[limits]\nanswers = 5\n").unwrap();
        let error = read::<Settings>(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("answers") && error.contains("coordinator.toml"), "{error}");
        let error = read::<Settings>(Some(&folder.path().join("none"))).unwrap_err().to_string();
        assert!(error.contains("--config"), "{error}");
    }
}
