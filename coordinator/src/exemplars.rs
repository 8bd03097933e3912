//! Lesion models of a site's own exemplars. A request that names an exemplar waits for its model, which is trained once: the
//! training is a request of its own, whose id follows from the exemplar and the recipe alone, so that however many requests and
//! coordinators ask for it, the store has it once.

use hiresmed_protocol::{
    Class, Digest, Request, RequestId, SiteId, VERSION, keys,
    request::{EXEMPLARS, Modality, Synthesise, Train, TrainedModel},
};

use crate::{Error, Ledger};

/// How the alias of an exemplar's model begins.
const ALIAS: &str = "exemplar-";

/// To be raised whenever the training below would make another model: exemplars are trained anew then, when they are next named.
const RECIPE: u32 = 1;

/// The preset of the shipped lesion models, and its steps for an exemplar of 64 px: six scales of 250.
const PRESET: &str = "lesion";
const STEPS: u64 = 1_500;

/// The exemplar that a lesion model's name stands for, if it is one.
pub(crate) fn named(name: &str) -> Option<Digest> {
    name.strip_prefix(EXEMPLARS)?.parse().ok()
}

/// Whether a request names an exemplar, and so may have to wait for a training.
pub(crate) fn has_any(request: &Request) -> bool {
    matches!(request, Request::Synthesise(synthesise) if synthesise.models.singan.iter().any(|name| named(name).is_some()))
}

/// The alias of an exemplar's model. It belongs to the exemplar's content: no other model can be called so by chance.
pub(crate) fn alias(exemplar: &Digest, modality: Modality) -> String {
    let digest = exemplar.to_string();
    let digest = digest.get(..40).unwrap_or(&digest);
    match modality {
        Modality::Ct => format!("{ALIAS}{digest}-r{RECIPE}"),
        other => format!("{ALIAS}{digest}-{}-r{RECIPE}", other.as_str()),
    }
}

/// Whether an alias is an exemplar's.
pub(crate) fn is_alias(name: &str) -> bool {
    name.starts_with(ALIAS)
}

/// The training of an exemplar's model. Somebody waits for it.
fn training(exemplar: &Digest, modality: Modality) -> Train {
    Train {
        version: VERSION,
        name: alias(exemplar, modality),
        model: TrainedModel::Singan,
        preset: PRESET.to_owned(),
        data: vec![format!("{EXEMPLARS}{exemplar}")],
        steps: STEPS,
        seed: 0,
        hold_out: Vec::new(),
        autoencoder: None,
        perceptual: None,
        modality,
        class: Class::Interactive,
    }
}

/// The exemplars of a request that have no model yet, each with the training that makes one, by its id.
///
/// # Errors
/// The store's.
pub(crate) async fn untrained(
    ledger: &Ledger,
    site: &SiteId,
    request: &Synthesise,
) -> Result<Vec<(RequestId, Request)>, Error> {
    let mut trainings = Vec::new();
    for exemplar in request.models.singan.iter().filter_map(|name| named(name)) {
        if ledger.store().head(&keys::alias("singan", &alias(&exemplar, request.modality))).await?.is_none() {
            let training = Request::Train(training(&exemplar, request.modality));
            trainings.push((RequestId::derive(&training, site, None), training));
        }
    }
    Ok(trainings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_is_named_by_its_digest_and_trained_by_one_request() {
        let digest = Digest::of(b"a lesion");
        assert_eq!(named(&format!("exemplars/{digest}")), Some(digest));
        assert_eq!((named("exemplars/"), named("exemplars/abc"), named("default")), (None, None, None));
        let train = Request::Train(training(&digest, Modality::Ct));
        train.validate().unwrap();
        let of =
            |digest, modality| RequestId::derive(&Request::Train(training(&digest, modality)), &SiteId::local(), None);
        let id = |digest| of(digest, Modality::Ct);
        assert_eq!(id(digest), id(digest));
        assert_ne!(id(digest), id(Digest::of(b"another")));
        assert_ne!(id(digest), of(digest, Modality::Kub));
        Request::Train(training(&digest, Modality::Kub)).validate().unwrap();
    }
}
