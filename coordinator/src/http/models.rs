//! The models that requests can name.

use std::collections::BTreeMap;

use aide::transform::TransformOperation;
use axum::{Json, extract::State};
use hiresmed_protocol::{Digest, keys};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, caller::Reader, problem::Problem};
use crate::models::{aliases, registered};

/// The kinds of models, in the order in which they are listed.
const KINDS: [&str; 10] =
    ["vqgan", "vqgan-residual", "singan", "singan-whole", "unet", "yolo", "prior", "ddpm", "styleswin", "density"];

/// A model package.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Model {
    /// Which network: the key of a request's `models` that it can stand at.
    pub kind: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// The names by which requests can call it.
    pub names: Vec<String>,
}

/// All models.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ModelList {
    /// Models by kind and digest.
    pub items: Vec<Model>,
}

/// `GET /v1/models`.
pub async fn list(State(api): State<Api>, _: Reader) -> Result<Json<ModelList>, Problem> {
    let mut items = Vec::new();
    for kind in KINDS {
        let mut models: BTreeMap<Digest, Vec<String>> =
            registered(&api.ledger, kind).await?.into_iter().map(|digest| (digest, Vec::new())).collect();
        for name in aliases(&api.ledger, kind).await? {
            let content = api.ledger.store().get(&keys::alias(kind, &name)).await?;
            // An alias whose package is gone stands for nothing that could be used.
            if let Ok(digest) = String::from_utf8_lossy(&content).trim().parse()
                && let Some(names) = models.get_mut(&digest)
            {
                names.push(name);
            }
        }
        items.extend(models.into_iter().map(|(digest, names)| Model { kind, digest, names }));
    }
    Ok(Json(ModelList { items }))
}

/// Documents [`list`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    operation.id("list_models").tag("models").summary("List the models that requests can name").description(
        "Models belong to the whole fleet; a request names them by name, digest, or 8 or more first digits of it.",
    )
}
