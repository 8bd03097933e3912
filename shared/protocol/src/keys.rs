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

/// The prefix of the records of who reads an unbounded request.
pub fn readers(request: &RequestId) -> String {
    format!("requests/{request}/readers/")
}

/// Where a reader of an unbounded request is. Made and renewed while it reads.
pub fn reader(request: &RequestId, reader: &str) -> String {
    format!("requests/{request}/readers/{reader}.json")
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

/// The kind of the model package that an object belongs to; `None` where it belongs to none.
pub fn model_kind(key: &str) -> Option<&str> {
    match key.strip_prefix("models/")?.split('/').collect::<Vec<_>>()[..] {
        [kind, digest, name] if !name.is_empty() && digest.parse::<Digest>().is_ok() => Some(kind),
        _ => None,
    }
}

/// The alias of a model package: a small object with the digest in hexadecimal.
pub fn alias(kind: &str, name: &str) -> String {
    format!("models/{kind}/aliases/{name}")
}

/// The site whose trainings may move an alias.
pub fn alias_owner(kind: &str, name: &str) -> String {
    format!("models/{kind}/owners/{name}.json")
}

/// The prefix of a site's exemplar: its crop and mask.
pub fn exemplar(site: &SiteId, digest: &Digest) -> String {
    format!("sites/{site}/exemplars/{digest}/")
}

/// A site's weight and quotas.
pub fn site(site: &SiteId) -> String {
    format!("sites/{site}/site.json")
}

/// The record that a request is a site's: who may see it is decided by this object alone.
pub fn owned(site: &SiteId, request: &RequestId) -> String {
    format!("{}{request}.json", owned_by(site))
}

/// The prefix of the records of a site's requests.
pub fn owned_by(site: &SiteId) -> String {
    format!("sites/{site}/requests/")
}

/// The prefix of a small object for each site, by its id: a site's own prefix may hold millions of objects.
pub const SITES: &str = "fleet/sites/";

/// The prefix of the API keys' records, by the key's id.
pub const API_KEYS: &str = "fleet/keys/";

/// The prefix of a small object `{site}/{request}` for each request that is to be dispatched.
pub const OPEN: &str = "fleet/open/";

/// Exists while a request is to be dispatched.
pub fn open(site: &SiteId, request: &RequestId) -> String {
    format!("{OPEN}{site}/{request}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_a_package_tells_its_kind() {
        let prefix = model("vqgan-residual", &Digest::of(b"a package"));
        assert_eq!(model_kind(&format!("{prefix}model.json")), Some("vqgan-residual"));
        for key in [alias("vqgan", "default"), format!("sites/{prefix}model.json"), prefix, "models/vqgan".into()] {
            assert_eq!(model_kind(&key), None, "{key}");
        }
    }
}
