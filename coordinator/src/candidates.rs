//! The one job of a request for candidates.

use hiresmed_protocol::{
    Class, Digest, Job, JobId, RequestId, SiteId, VERSION, Work,
    job::{FindCandidates, Object},
    keys,
    request::Candidates,
    validate::{Fault, Faults},
};
use hiresmed_services::store;

use crate::{
    Error, Ledger,
    models::{self, Locators},
};

/// Resolves the names in a request for candidates to objects by digest.
///
/// # Errors
/// [`Error::Refused`] where the site has no such input, or it has another digest; those of [`models::resolve_locator`]; the
/// store's.
pub(crate) async fn job(ledger: &Ledger, id: &RequestId, site: &SiteId, wanted: &Candidates) -> Result<Job, Error> {
    let input = input(ledger, site, wanted).await?;
    let Locators { unet, density, yolo } =
        models::resolve_locator(ledger, &wanted.models, wanted.location, wanted.modality).await?;
    Ok(Job {
        version: VERSION,
        id: JobId::candidates(id),
        request: id.clone(),
        site: site.clone(),
        attempt: 0,
        class: Class::Interactive,
        work: Work::Candidates(FindCandidates { request: wanted.clone(), input, unet, density, yolo }),
    })
}

/// The image that the request names: below the site's own inputs, wherever its name leads.
async fn input(ledger: &Ledger, site: &SiteId, wanted: &Candidates) -> Result<Object, Error> {
    let inputs = keys::inputs(site);
    let key = format!("{inputs}{}", wanted.input.strip_prefix(&inputs).unwrap_or(&wanted.input));
    let head = match ledger.store().head(&key).await {
        Ok(head) => head,
        // No object can be called so.
        Err(store::Error::Key { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(head) = head else {
        let allowed = "must be the key of an image below the site's inputs, and there is none; upload it first";
        return Err(refused("input", format!("{:?}", wanted.input), allowed));
    };
    let sha256 = Digest::from_bytes(head.sha256);
    match wanted.sha256 {
        Some(other) if other != sha256 => {
            let allowed = format!("must be the digest of the image that is there, {sha256}");
            Err(refused("sha256", other.to_string(), &allowed))
        }
        _ => Ok(Object { key, sha256 }),
    }
}

fn refused(path: &str, value: String, allowed: &str) -> Error {
    let fault = Fault { path: path.to_owned(), value, allowed: allowed.to_owned() };
    Error::Refused(Faults::from(vec![fault]))
}
