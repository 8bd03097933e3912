//! Logs: one line an event on standard error, for people or, as JSON, for machines.
//!
//! Levels: `error` somebody must act; `warn` something was lost or repeated; `info` a request, a job or a process began or
//! ended; `debug` a stage; `trace` everything. Results go to standard output and are never logged.

use std::io::{self, IsTerminal};

use serde::Deserialize;
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{self, MakeWriter},
    layer::{Layered, SubscriberExt},
    registry::Registry,
    util::SubscriberInitExt,
};

#[cfg(feature = "otlp")]
use crate::traces;
use crate::traces::Export;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("`{filter}` is not a log filter: {cause}; write for example `info` or `hiresmed_worker=debug,info`")]
    Filter {
        /// The refused text.
        filter: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Spans cannot be exported.
    #[error("setting `log.otlp`: spans cannot go to `{url}`: {cause}; name a collector as `http://127.0.0.1:4318`")]
    Export {
        /// The collector's address.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    Again,
}

/// How lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// For people; in colour on a terminal, unless the environment says `NO_COLOR`.
    #[default]
    Human,
    /// A JSON object a line, its fields beside the message.
    Json,
}

/// What a program logs to standard error, as a part of its settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whether lines are for people, and not JSON.
    pub human: bool,
    /// A level, or levels by target: `info`, `hiresmed_worker=debug,warn`.
    pub filter: String,
    /// An OpenTelemetry collector that gets the spans by OTLP over HTTP, as `http://127.0.0.1:4318`; none without.
    pub otlp: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { human: false, filter: "info".to_owned(), otlp: None }
    }
}

impl Settings {
    /// Starts logging for the whole process, and the export of its spans as those of `service`. To be called outside of any async
    /// runtime, as the export has a thread of its own that blocks.
    ///
    /// # Errors
    /// As [`start`]; [`Error::Export`].
    pub fn start(&self, service: &'static str) -> Result<Export, Error> {
        let format = if self.human { Format::Human } else { Format::Json };
        let Some(url) = &self.otlp else {
            start(format, &self.filter)?;
            return Ok(Export::default());
        };
        let refused = |cause| Error::Export { url: url.clone(), cause };
        #[cfg(feature = "otlp")]
        {
            let (layer, provider) = traces::layer(url, service).map_err(refused)?;
            let subscriber = subscriber(format, &self.filter, has_colour(), io::stderr)?;
            subscriber.with(layer).try_init().map_err(|_| Error::Again)?;
            Ok(Export { provider: Some(provider) })
        }
        #[cfg(not(feature = "otlp"))]
        {
            let _ = service;
            Err(refused("this program was built without OTLP (feature `fleet`)".to_owned()))
        }
    }
}

/// Starts logging to standard error for the whole process.
///
/// `filter` is a level, or levels by target: `info`, `hiresmed_worker=debug,warn`.
///
/// # Errors
/// [`Error::Filter`] where the filter cannot be read, [`Error::Again`] at the second call.
pub fn start(format: Format, filter: &str) -> Result<(), Error> {
    start_to(format, filter, io::stderr)
}

/// As [`start`], to another place: for example one that keeps clear of progress bars.
///
/// # Errors
/// As [`start`].
pub fn start_to<W>(format: Format, filter: &str, writer: W) -> Result<(), Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    subscriber(format, filter, has_colour(), writer)?.try_init().map_err(|_| Error::Again)
}

fn has_colour() -> bool {
    // `NO_COLOR` is a convention among terminals (no-color.org), not a setting of ours.
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What is logged at all.
type Filtered = Layered<EnvFilter, Registry>;

/// That, with the lines it becomes.
type Logged = Layered<Box<dyn Layer<Filtered> + Send + Sync>, Filtered>;

fn subscriber<W>(format: Format, filter: &str, colour: bool, writer: W) -> Result<Logged, Error>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let levels = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| Error::Filter { filter: filter.to_owned(), cause: error.to_string() })?;
    let lines: Box<dyn Layer<Filtered> + Send + Sync> = match format {
        Format::Human => fmt::layer().with_ansi(colour).with_target(false).with_writer(writer).boxed(),
        Format::Json => fmt::layer().json().flatten_event(true).with_writer(writer).boxed(),
    };
    Ok(Registry::default().with(levels).with(lines))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("job", job = "r-s00001");
            let _entered = span.enter();
            tracing::info!(images = 3, "job succeeded");
            tracing::debug!("a detail");
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn people_get_lines() {
        let text = logged(Format::Human, "info");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO") && text.contains("job succeeded") && text.contains("images=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn machines_get_objects() {
        let text = logged(Format::Json, "debug");
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["message"], "job succeeded");
        assert_eq!(objects[0]["images"], 3);
        assert_eq!(objects[0]["span"]["job"], "r-s00001");
        assert_eq!(objects[1]["level"], "DEBUG");
    }

    #[test]
    fn a_bad_filter_is_refused_with_an_example() {
        let error = subscriber(Format::Human, "hiresmed=loud", false, io::sink).err().unwrap().to_string();
        assert!(error.contains("hiresmed=loud") && error.contains("for example"), "{error}");
    }
}
