//! Every metric: name, help text, labels, buckets, in one place.
//!
//! Label values come from closed sets (kinds, outcomes, stages, modalities, configured sites, names of scores), never from
//! requests, files or people, so that the number of time series is bounded.

use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The `Content-Type` of [`Metrics::render`] (Prometheus text exposition format 0.0.4).
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

/// A metric's definition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// Name, with its unit.
    pub name: &'static str,
    /// Help text, for dashboards.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it is.
    pub kind: Kind,
    /// Upper bounds of a histogram's buckets; empty for others.
    pub buckets: &'static [f64],
}

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Definition {
    Definition { name, help, labels, kind: Kind::Counter, buckets: &[] }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Definition {
    Definition { name, help, labels, kind: Kind::Gauge, buckets: &[] }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
) -> Definition {
    Definition { name, help, labels, kind: Kind::Histogram, buckets }
}

/// A job takes a second to the five minutes that the planner aims at, and more where a machine is slow.
const JOB_SECONDS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0];

/// A stage takes milliseconds on an accelerator to tens of seconds on a slow machine.
const STAGE_SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// A model is loaded from the disk in a tenth of a second, from the network in minutes.
const LOAD_SECONDS: &[f64] = &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0];

/// A call is answered from memory in a millisecond, or after many looks at the store in a second.
const HTTP_SECONDS: &[f64] = &[0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

const JOBS: Definition = counter("hiresmed_jobs_total", "Attempts at jobs that ended.", &["kind", "outcome"]);
const JOB_DURATION: Definition =
    histogram("hiresmed_job_duration_seconds", "Wall time of an attempt at a job.", &["kind"], JOB_SECONDS);
const STAGE_DURATION: Definition = histogram(
    "hiresmed_stage_duration_seconds",
    "Wall time of a stage of the pipeline for one image.",
    &["stage"],
    STAGE_SECONDS,
);
const JOBS_IN_FLIGHT: Definition = gauge("hiresmed_jobs_in_flight", "Jobs that are published and not done.", &["kind"]);
const BACKLOG: Definition =
    gauge("hiresmed_backlog_jobs", "Jobs that are planned and not yet published.", &["kind", "site"]);
const IMAGES: Definition = counter("hiresmed_images_total", "Synthetic images that were made.", &["modality"]);
const CHECKPOINT_CACHE: Definition = counter(
    "hiresmed_checkpoint_cache_total",
    "Look-ups of lesion checkpoints in the cache: hit, miss or error.",
    &["result"],
);
const MODEL_LOAD: Definition = histogram(
    "hiresmed_model_load_seconds",
    "Time to fetch, verify and open a model package.",
    &["kind"],
    LOAD_SECONDS,
);
const ACCELERATOR_BUSY: Definition =
    gauge("hiresmed_accelerator_busy_ratio", "Share of the last minute in which networks ran, 0 to 1.", &[]);
const TRAINING_LOSS: Definition =
    gauge("hiresmed_training_loss", "Last value of a term of a training's loss.", &["model", "term"]);
const SCORE: Definition = gauge("hiresmed_score", "Held-out score of the model that was opened last.", &["name"]);

const HTTP_DURATION: Definition = histogram(
    "hiresmed_http_request_duration_seconds",
    "Time until the answer to a call of the API begins.",
    &["method", "route", "status"],
    HTTP_SECONDS,
);

/// Every metric that exists.
pub const DEFINITIONS: [Definition; 12] = [
    JOBS,
    JOB_DURATION,
    STAGE_DURATION,
    JOBS_IN_FLIGHT,
    BACKLOG,
    IMAGES,
    CHECKPOINT_CACHE,
    MODEL_LOAD,
    ACCELERATOR_BUSY,
    TRAINING_LOSS,
    SCORE,
    HTTP_DURATION,
];

/// Why metrics failed. With the definitions above it does not happen; a changed definition may be wrong.
#[derive(Debug, thiserror::Error)]
#[error("a metric's definition is wrong: {0}")]
pub struct Error(#[from] prometheus::Error);

/// The metrics of a process. Make one at the start and share it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    jobs: IntCounterVec,
    job_duration: HistogramVec,
    stage_duration: HistogramVec,
    jobs_in_flight: IntGaugeVec,
    backlog: IntGaugeVec,
    images: IntCounterVec,
    checkpoint_cache: IntCounterVec,
    model_load: HistogramVec,
    accelerator_busy: Gauge,
    training_loss: GaugeVec,
    score: GaugeVec,
    http_duration: HistogramVec,
}

impl Metrics {
    /// All metrics at zero, in a registry of their own.
    ///
    /// # Errors
    /// Where a definition is wrong.
    pub fn new() -> Result<Self, Error> {
        let metrics = Self {
            registry: Registry::new(),
            jobs: IntCounterVec::new(opts(&JOBS), JOBS.labels)?,
            job_duration: HistogramVec::new(buckets(&JOB_DURATION), JOB_DURATION.labels)?,
            stage_duration: HistogramVec::new(buckets(&STAGE_DURATION), STAGE_DURATION.labels)?,
            jobs_in_flight: IntGaugeVec::new(opts(&JOBS_IN_FLIGHT), JOBS_IN_FLIGHT.labels)?,
            backlog: IntGaugeVec::new(opts(&BACKLOG), BACKLOG.labels)?,
            images: IntCounterVec::new(opts(&IMAGES), IMAGES.labels)?,
            checkpoint_cache: IntCounterVec::new(opts(&CHECKPOINT_CACHE), CHECKPOINT_CACHE.labels)?,
            model_load: HistogramVec::new(buckets(&MODEL_LOAD), MODEL_LOAD.labels)?,
            accelerator_busy: Gauge::with_opts(opts(&ACCELERATOR_BUSY))?,
            training_loss: GaugeVec::new(opts(&TRAINING_LOSS), TRAINING_LOSS.labels)?,
            score: GaugeVec::new(opts(&SCORE), SCORE.labels)?,
            http_duration: HistogramVec::new(buckets(&HTTP_DURATION), HTTP_DURATION.labels)?,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.jobs.clone()))?;
        registry.register(Box::new(metrics.job_duration.clone()))?;
        registry.register(Box::new(metrics.stage_duration.clone()))?;
        registry.register(Box::new(metrics.jobs_in_flight.clone()))?;
        registry.register(Box::new(metrics.backlog.clone()))?;
        registry.register(Box::new(metrics.images.clone()))?;
        registry.register(Box::new(metrics.checkpoint_cache.clone()))?;
        registry.register(Box::new(metrics.model_load.clone()))?;
        registry.register(Box::new(metrics.accelerator_busy.clone()))?;
        registry.register(Box::new(metrics.training_loss.clone()))?;
        registry.register(Box::new(metrics.score.clone()))?;
        registry.register(Box::new(metrics.http_duration.clone()))?;
        Ok(metrics)
    }

    /// An attempt at a job of `kind` ended with `outcome` after `seconds`.
    pub fn job_ended(&self, kind: &str, outcome: &str, seconds: f64) {
        self.jobs.with_label_values(&[kind, outcome]).inc();
        self.job_duration.with_label_values(&[kind]).observe(seconds);
    }

    /// A stage took `seconds` for one image.
    pub fn stage_ended(&self, stage: &str, seconds: f64) {
        self.stage_duration.with_label_values(&[stage]).observe(seconds);
    }

    /// So many jobs of `kind` are published and not done.
    pub fn set_jobs_in_flight(&self, kind: &str, jobs: u64) {
        self.jobs_in_flight.with_label_values(&[kind]).set(jobs.try_into().unwrap_or(i64::MAX));
    }

    /// So many jobs of `kind` of `site` wait to be published.
    pub fn set_backlog(&self, kind: &str, site: &str, jobs: u64) {
        self.backlog.with_label_values(&[kind, site]).set(jobs.try_into().unwrap_or(i64::MAX));
    }

    /// So many images of `modality` were made.
    pub fn images_made(&self, modality: &str, images: u64) {
        self.images.with_label_values(&[modality]).inc_by(images);
    }

    /// A checkpoint was looked up in the cache: `hit`, `miss` or `error`.
    pub fn checkpoint_looked_up(&self, result: &str) {
        self.checkpoint_cache.with_label_values(&[result]).inc();
    }

    /// A model of `kind` was fetched, verified and opened in `seconds`.
    pub fn model_loaded(&self, kind: &str, seconds: f64) {
        self.model_load.with_label_values(&[kind]).observe(seconds);
    }

    /// Networks ran for this share of the last minute, 0 to 1.
    pub fn set_accelerator_busy(&self, ratio: f64) {
        self.accelerator_busy.set(ratio);
    }

    /// The last value of `term` of the loss of `model`.
    pub fn set_training_loss(&self, model: &str, term: &str, value: f64) {
        self.training_loss.with_label_values(&[model, term]).set(value);
    }

    /// The last value of the image quality score `name`.
    pub fn set_score(&self, name: &str, value: f64) {
        self.score.with_label_values(&[name]).set(value);
    }

    /// A call of `method` to `route`, a path with placeholders, was answered with `status` after `seconds`.
    pub fn call_answered(&self, method: &str, route: &str, status: u16, seconds: f64) {
        self.http_duration.with_label_values(&[method, route, &status.to_string()]).observe(seconds);
    }

    /// All metrics in Prometheus' text format, sorted by name; send it as [`CONTENT_TYPE`]. A metric with labels shows once
    /// a label value was used.
    ///
    /// # Errors
    /// Where a definition is wrong.
    pub fn render(&self) -> Result<String, Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

fn opts(definition: &Definition) -> Opts {
    Opts::new(definition.name, definition.help)
}

fn buckets(definition: &Definition) -> HistogramOpts {
    HistogramOpts::new(definition.name, definition.help).buckets(definition.buckets.to_vec())
}

#[cfg(test)]
mod tests;
