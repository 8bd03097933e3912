//! Where documents lie in the store.

use crate::ids::{Digest, JobId, RequestId, SiteId};

/// The request as it was accepted.
pub fn request(id: &RequestId) -> String {
    format!("requests/{id}/request.json")
}

/// The request's plan.
pub fn plan(id: &RequestId) -> String {
    format!("requests/{id}/plan.json")
}

/// Exists when the request was cancelled.
pub fn cancelled(id: &RequestId) -> String {
    format!("requests/{id}/cancelled.json")
}

/// The prefix of all that concerns the request's jobs.
pub fn jobs(id: &RequestId) -> String {
    format!("requests/{id}/jobs/")
}

/// The outcome that counts, created only if absent.
pub fn done(request: &RequestId, job: &JobId) -> String {
    format!("requests/{request}/jobs/{job}/done.json")
}

/// The prefix of a job's attempt records.
pub fn attempts(request: &RequestId, job: &JobId) -> String {
    format!("requests/{request}/jobs/{job}/attempts/")
}

/// A record that `worker` wrote when it started the job's `attempt`; `delivery` tells its deliveries apart.
pub fn attempt(request: &RequestId, job: &JobId, attempt: u32, delivery: &str) -> String {
    format!("requests/{request}/jobs/{job}/attempts/{attempt:03}-{delivery}.json")
}

/// An output by the digest of its bytes.
pub fn object(site: &SiteId, sha256: &Digest) -> String {
    format!("sites/{site}/objects/{sha256}")
}

/// The prefix of a site's inputs.
pub fn inputs(site: &SiteId) -> String {
    format!("sites/{site}/inputs/")
}

/// The prefix of a model package's files.
pub fn model(kind: &str, digest: &Digest) -> String {
    format!("models/{kind}/{digest}/")
}

/// The alias of a model package: a small object with the digest in hexadecimal.
pub fn alias(kind: &str, name: &str) -> String {
    format!("models/{kind}/aliases/{name}")
}
