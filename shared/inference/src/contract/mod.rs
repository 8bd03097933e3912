//! What a model of each kind must offer: its graphs' roles, and the count, rank and element type of their ports.
//!
//! Names of inputs and outputs are free, so that models exported elsewhere fit; only their order counts. Where shapes allow,
//! a dry run on a small image shows that the graphs work and that the encoder's tokens are what the decoder takes.

mod dry_run;

use std::collections::BTreeMap;

use crate::onnx::{Dim, Model, Port};
use crate::package::{Description, Kind};
use crate::runtime::Runtime;
use crate::tensor::ElementType::{self, F32, I64};

/// Element type and rank of a port.
type Shape = (ElementType, usize);

/// What one graph must declare.
struct Role {
    name: &'static str,
    /// Types of the inputs; a last one that repeats stands for one or more.
    inputs: &'static [Shape],
    repeats_input: bool,
    /// Types of the outputs.
    outputs: &'static [Shape],
    /// How many of the outputs, from the first, must be there.
    required_outputs: usize,
    /// What the graph does, for the messages.
    meaning: &'static str,
}

const IMAGE: Shape = (F32, 4);
const TOKENS: Shape = (I64, 3);

const fn role(name: &'static str, inputs: &'static [Shape], outputs: &'static [Shape], meaning: &'static str) -> Role {
    Role { name, inputs, repeats_input: false, outputs, required_outputs: outputs.len(), meaning }
}

const ENCODER: Role = role("encoder", &[IMAGE], &[TOKENS], "image f32[N, C, H, W] to tokens i64[N, h, w]");
const DECODER: Role = role("decoder", &[TOKENS], &[IMAGE], "tokens i64[N, h, w] to image f32[N, C, H, W]");
const RECONSTRUCT: Role = Role {
    required_outputs: 1,
    ..role("reconstruct", &[IMAGE], &[IMAGE, TOKENS], "image f32[N, C, H, W] to image f32[N, C, H, W] (and tokens)")
};
const SEGMENT: Role = role("segment", &[IMAGE], &[IMAGE], "grey image f32[N, 1, H, W] to logits f32[N, 1, H, W]");
const DETECT: Role =
    role("detect", &[IMAGE], &[(F32, 3)], "image f32[N, 1 or 3, H, W] to boxes f32[N, 4 + classes, n] or f32[N, n, 6]");
const GENERATE: Role = Role {
    repeats_input: true,
    ..role("generate", &[IMAGE], &[IMAGE], "noises f32[N, c, h, w], coarse to fine, to image and mask f32[N, 2, h, w]")
};
const PREDICT: Role = role(
    "predict",
    &[TOKENS, (I64, 2)],
    &[(F32, 3)],
    "tokens i64[N, h, w] (K where hidden) and conditions i64[N, 2] to logits f32[N, h * w, K]",
);
const GENERATE_FROM_LATENT: Role = Role {
    repeats_input: true,
    ..role("generate", &[(F32, 2)], &[IMAGE], "latent f32[N, Z] (and truncation f32[N, 1]) to image f32[N, C, H, W]")
};
const STEP: Role = role(
    "step",
    &[(I64, 2), (I64, 1), (I64, 2), (F32, 5), (F32, 5)],
    &[(F32, 3), (F32, 5), (F32, 5)],
    "token i64[N, 1], place i64[1], conditions i64[N, 2], keys and values f32[layers, N, heads, T, d] to logits f32[N, 1, K], \
     keys and values of T + 1 places",
);

const DENOISE: Role = role(
    "denoise",
    &[IMAGE, (I64, 1)],
    &[IMAGE],
    "image with noise in it f32[N, C, H, W] and noise level i64[N] to the noise f32[N, C, H, W]",
);

/// The sets of roles, any of which makes a model of this kind; `None` where the kind's contract is not fixed yet.
fn alternatives(kind: Kind) -> Option<Vec<Vec<Role>>> {
    match kind {
        Kind::Vqgan | Kind::VqganResidual => Some(vec![vec![ENCODER, DECODER], vec![RECONSTRUCT]]),
        Kind::Unet => Some(vec![vec![SEGMENT]]),
        Kind::Yolo => Some(vec![vec![DETECT]]),
        Kind::Singan | Kind::SinganWhole => Some(vec![vec![GENERATE]]),
        Kind::Prior => Some(vec![vec![PREDICT], vec![STEP]]),
        Kind::Density => Some(vec![vec![]]),
        Kind::Ddpm => Some(vec![vec![DENOISE]]),
        Kind::Styleswin => Some(vec![vec![GENERATE_FROM_LATENT]]),
    }
}

/// Everything that keeps a model from being used as one of its kind, from its description and the bytes of its graphs by
/// role; empty where nothing does.
pub fn check(description: &Description, graphs: &BTreeMap<String, Vec<u8>>, runtime: &Runtime) -> Vec<String> {
    let kind = description.kind;
    let mut faults = Vec::new();
    if needs_window(kind) && description.window.is_none() {
        faults.push(format!("window is missing; a {kind} model says which values it sees as [-1, 1]"));
    }
    let mut models = BTreeMap::new();
    for (role, bytes) in graphs {
        match Model::parse(bytes) {
            Ok(model) => drop(models.insert(role.as_str(), model)),
            Err(error) => faults.push(format!("graph {role}: {error}")),
        }
    }
    let Some(alternatives) = alternatives(kind) else {
        if graphs.is_empty() {
            faults.push(format!("graphs is empty; a {kind} model has one at least"));
        }
        return faults;
    };
    let fits = |roles: &&Vec<Role>| roles.iter().all(|role| graphs.contains_key(role.name));
    let Some(roles) = alternatives.iter().find(fits) else {
        faults.push(format!("graphs are {}; a {kind} model has {}", list(graphs), expected(&alternatives)));
        return faults;
    };
    for name in graphs.keys().filter(|name| !alternatives.iter().flatten().any(|role| role.name == *name)) {
        faults.push(format!("graph {name} is no role of a {kind} model, which has {}", expected(&alternatives)));
    }
    for role in roles {
        if let Some(model) = models.get(role.name) {
            check_ports(role, model, &mut faults);
        }
    }
    check_channels(description, &models, &mut faults);
    if kind == Kind::Yolo
        && let Some(model) = models.get(DETECT.name)
    {
        check_detector(model, &mut faults);
    }
    if faults.is_empty() {
        faults = dry_run::faults(kind, graphs, &models, runtime);
    }
    faults
}

fn needs_window(kind: Kind) -> bool {
    !matches!(kind, Kind::Prior | Kind::Density)
}

fn list(graphs: &BTreeMap<String, Vec<u8>>) -> String {
    if graphs.is_empty() { "none".into() } else { graphs.keys().cloned().collect::<Vec<_>>().join(", ") }
}

fn expected(alternatives: &[Vec<Role>]) -> String {
    let set = |roles: &Vec<Role>| match roles.as_slice() {
        [] => "no graph".to_owned(),
        roles => roles.iter().map(|role| role.name).collect::<Vec<_>>().join(" and "),
    };
    alternatives.iter().map(set).collect::<Vec<_>>().join(", or ")
}

fn check_ports(role: &Role, model: &Model, faults: &mut Vec<String>) {
    let fault = |text: String| format!("graph {}: {text}; it is {}", role.name, role.meaning);
    let enough = if role.repeats_input { !model.inputs.is_empty() } else { model.inputs.len() == role.inputs.len() };
    if !enough {
        let count = if role.repeats_input { "one or more".to_owned() } else { role.inputs.len().to_string() };
        faults.push(fault(format!("it has {} inputs, not {count}", model.inputs.len())));
    } else {
        for (index, port) in model.inputs.iter().enumerate() {
            if let Some(text) = misfit(port, role.inputs[index.min(role.inputs.len() - 1)]) {
                faults.push(fault(format!("input {text}")));
            }
        }
    }
    let count = model.outputs.len();
    if count < role.required_outputs || count > role.outputs.len() {
        faults.push(fault(format!("it has {count} outputs, not {}", role.required_outputs)));
        return;
    }
    for (port, shape) in model.outputs.iter().zip(role.outputs) {
        if let Some(text) = misfit(port, *shape) {
            faults.push(fault(format!("output {text}")));
        }
    }
}

fn misfit(port: &Port, (element, rank): Shape) -> Option<String> {
    let type_fits = port.element == Some(element);
    // A rank that the file leaves open is settled by the dry run.
    let rank_fits = port.shape.as_ref().is_none_or(|shape| shape.len() == rank);
    (!type_fits || !rank_fits).then(|| format!("{port} is not {element} of rank {rank}"))
}

/// The channels that the pipeline feeds and reads. What a graph leaves open the dry run settles, but for an autoencoder's
/// image: how many it wants is read from its graph.
fn check_channels(description: &Description, models: &BTreeMap<&str, Model>, faults: &mut Vec<String>) {
    let mut expect = |role: &str, what: String, port: Option<&Port>, wanted: i64| match port.and_then(|p| fixed(p, 1)) {
        Some(found) if found != wanted => {
            faults.push(format!("graph {role}: its {what} has {found} channels; the pipeline has {wanted} there"));
        }
        _ => {}
    };
    if let (Kind::Unet, Some(model)) = (description.kind, models.get(SEGMENT.name)) {
        expect(SEGMENT.name, "input".to_owned(), model.inputs.first(), 1);
        expect(SEGMENT.name, "output".to_owned(), model.outputs.first(), 1);
    }
    // Image and mask, or a whole image; the coarsest noise is one map in any case.
    let channels = match description.kind {
        Kind::Singan => Some(2),
        Kind::SinganWhole => Some(1),
        _ => None,
    };
    if let (Some(channels), Some(model)) = (channels, models.get(GENERATE.name)) {
        for (scale, port) in model.inputs.iter().enumerate() {
            expect(GENERATE.name, format!("input {scale}"), Some(port), if scale == 0 { 1 } else { channels });
        }
        expect(GENERATE.name, "output".to_owned(), model.outputs.first(), channels);
    }
    if !matches!(description.kind, Kind::Vqgan | Kind::VqganResidual) {
        return;
    }
    for role in [ENCODER.name, RECONSTRUCT.name] {
        let Some(port) = models.get(role).and_then(|model| model.inputs.first()) else { continue };
        let declared = description.configuration["channels"].as_i64();
        match fixed(port, 1) {
            Some(channels) if !(1..=4).contains(&channels) => faults.push(format!(
                "graph {role}: its input has {channels} channels; the pipeline repeats a grey image 1 to 4 times"
            )),
            Some(channels) if declared.is_some_and(|declared| declared != channels) => faults.push(format!(
                "graph {role}: its input has {channels} channels; configuration.channels is {}",
                declared.unwrap_or_default()
            )),
            None if port.shape.as_ref().is_none_or(|shape| shape.len() == 4) => {
                faults.push(format!("graph {role}: its input {port} leaves the channels open; export it with 1 to 4"))
            }
            _ => {}
        }
    }
}

fn fixed(port: &Port, index: usize) -> Option<i64> {
    match port.shape.as_ref().and_then(|shape| shape.get(index)) {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => None,
    }
}

/// YOLO11's two layouts: `[N, 4 + classes, anchors]` as exported, `[N, n, 6]` with suppression inside.
fn check_detector(model: &Model, faults: &mut Vec<String>) {
    if let Some(channels) =
        model.inputs.first().and_then(|port| fixed(port, 1)).filter(|channels| ![1, 3].contains(channels))
    {
        faults
            .push(format!("graph detect: its input has {channels} channels; a grey detector has 1, a YOLO11 export 3"));
    }
    let Some(output) = model.outputs.first() else { return };
    if let (Some(rows), Some(columns)) = (fixed(output, 1), fixed(output, 2))
        && rows < 5
        && columns != 6
    {
        faults.push(format!("graph detect: output {output} is neither [N, 4 + classes, n] nor [N, n, 6]"));
    }
}

#[cfg(test)]
mod tests;
