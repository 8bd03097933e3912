//! Lesion models of a site's own exemplars. A request that names an exemplar waits for its model, which is trained once: the
//! training is a request of its own, whose id follows from the exemplar and the recipe alone, so that however many requests and
//! coordinators ask for it, the store has it once.

use hiresmed_protocol::{
    Class, Digest, Request, RequestId, SiteId, VERSION, keys,
    request::{EXEMPLAR_RECIPE, EXEMPLARS, Modality, Synthesise, Train, TrainedModel},
};

use crate::{Error, Ledger};

/// How the alias of an exemplar's model begins.
const ALIAS: &str = "exemplar-";

/// The preset of lesion models, and its most steps for an exemplar of 64 px: six scales of 500. A scale that stops early skips the rest
/// of its steps.
const PRESET: &str = "lesion";
const STEPS: u64 = 3_000;

/// The exemplar that a lesion model's name stands for, if it is one.
pub(crate) fn named(name: &str) -> Option<Digest> {
    name.strip_prefix(EXEMPLARS)?.parse().ok()
}

/// Whether a request names an exemplar, and so may have to wait for a training.
pub(crate) fn has_any(request: &Request) -> bool {
    matches!(request, Request::Synthesise(synthesise) if synthesise.models.singan.iter().any(|name| named(name).is_some()))
}

/// The alias of an exemplar's model. It belongs to the exemplar's content, the modality and the recipe: no other model can be called so
/// by chance, and one of an older recipe is not found.
pub(crate) fn alias(exemplar: &Digest, modality: Modality) -> String {
    alias_of(exemplar, modality, EXEMPLAR_RECIPE)
}

fn alias_of(exemplar: &Digest, modality: Modality, recipe: u32) -> String {
    let digest = exemplar.to_string();
    let digest = digest.get(..40).unwrap_or(&digest);
    match modality {
        Modality::Ct => format!("{ALIAS}{digest}-r{recipe}"),
        other => format!("{ALIAS}{digest}-{}-r{recipe}", other.as_str()),
    }
}

/// Whether an alias is an exemplar's.
pub(crate) fn is_alias(name: &str) -> bool {
    name.starts_with(ALIAS)
}

/// The training of an exemplar's model by a version of the recipe. Somebody waits for it.
fn training(exemplar: &Digest, modality: Modality, recipe: u32) -> Train {
    Train {
        version: VERSION,
        name: alias_of(exemplar, modality, recipe),
        model: TrainedModel::Singan,
        preset: PRESET.to_owned(),
        data: vec![format!("{EXEMPLARS}{exemplar}")],
        steps: STEPS,
        seed: 0,
        hold_out: Vec::new(),
        score_on: Vec::new(),
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
    untrained_by(ledger, site, request, EXEMPLAR_RECIPE).await
}

async fn untrained_by(
    ledger: &Ledger,
    site: &SiteId,
    request: &Synthesise,
    recipe: u32,
) -> Result<Vec<(RequestId, Request)>, Error> {
    let mut trainings = Vec::new();
    for exemplar in request.models.singan.iter().filter_map(|name| named(name)) {
        let alias = alias_of(&exemplar, request.modality, recipe);
        if ledger.store().head(&keys::alias("singan", &alias)).await?.is_none() {
            let training = Request::Train(training(&exemplar, request.modality, recipe));
            trainings.push((RequestId::derive(&training, site, None), training));
        }
    }
    Ok(trainings)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hiresmed_services::store::Directory;

    use super::*;

    #[test]
    fn an_exemplar_is_named_by_its_digest_and_trained_by_one_request() {
        let digest = Digest::of(b"a lesion");
        assert_eq!(named(&format!("exemplars/{digest}")), Some(digest));
        assert_eq!((named("exemplars/"), named("exemplars/abc"), named("default")), (None, None, None));
        let id = |digest: &Digest, modality, recipe| {
            let train = Request::Train(training(digest, modality, recipe));
            train.validate().unwrap();
            RequestId::derive(&train, &SiteId::local(), None)
        };
        let ct = |digest: &Digest, recipe| id(digest, Modality::Ct, recipe);
        assert_eq!(ct(&digest, 1), ct(&digest, 1));
        assert_ne!(ct(&digest, 1), ct(&Digest::of(b"another"), 1));
        assert_ne!(ct(&digest, 1), ct(&digest, 2));
        assert_ne!(ct(&digest, 1), id(&digest, Modality::Kub, 1));
        assert!(is_alias(&alias(&digest, Modality::Kub)));
    }

    #[tokio::test]
    async fn a_changed_recipe_trains_again_and_the_same_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(Arc::new(Directory::open(folder.path()).unwrap()));
        let (site, exemplar) = (SiteId::local(), Digest::of(b"a lesion"));
        let request =
            serde_json::json!({ "version": 1, "count": 1, "models": { "singan": [format!("exemplars/{exemplar}")] } });
        let request: Synthesise = serde_json::from_value(request).unwrap();
        let trainings = |recipe| untrained_by(&ledger, &site, &request, recipe);
        let first = trainings(EXEMPLAR_RECIPE).await.unwrap();
        let [(id, Request::Train(train))] = first.as_slice() else { panic!("one training, and not {first:?}") };
        // What the end of a training does.
        ledger.register(id, &keys::alias("singan", &train.name), &Digest::of(b"a package")).await.unwrap();
        assert_eq!(trainings(EXEMPLAR_RECIPE).await.unwrap(), []);
        assert_eq!(untrained(&ledger, &site, &request).await.unwrap(), []);
        let again = trainings(EXEMPLAR_RECIPE + 1).await.unwrap();
        assert_eq!(again.len(), 1);
        assert_ne!(again[0].0, *id);
    }
}
