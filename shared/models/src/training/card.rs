//! The model card of a training, and the picture of its losses.

use std::fmt::Write as _;

use hiresmed_inference::package::{Draft, Kind};

use super::{Error, History, curves};
use crate::weights::Weights;

/// The picture's file in a package.
pub const CURVES_FILE: &str = "losses.svg";

/// The curves of a checkpoint's losses and measures; `None` for one without a history.
///
/// # Errors
/// [`Error::Parent`] for a history that cannot be read, [`Error::Export`] where it cannot be drawn.
pub(super) fn curves(checkpoint: &Weights) -> Result<Option<String>, Error> {
    let Some(history) = History::of(checkpoint)? else { return Ok(None) };
    let panel = |name: &str| curves::Panel {
        title: name.to_owned(),
        across: "step".to_owned(),
        lines: vec![(String::new(), history.curve(name))],
    };
    let panels: Vec<_> = history.names().map(panel).collect();
    let drawn = curves::draw(&panels).map_err(|error| Error::Export(format!("the curves of its losses: {error}")));
    Ok((!panels.is_empty()).then_some(drawn?))
}

/// What a score is, for people.
fn meaning(name: &str) -> &str {
    match name {
        "held_out_images" => "images",
        "held_out_boxes" => "lesions on them",
        "psnr_db" => "peak signal-to-noise ratio of the reconstruction, dB",
        "psnr_db_sd" => "its standard deviation, dB",
        "ssim" => "structural similarity of the reconstruction",
        "ssim_sd" => "its standard deviation",
        "dice_held_out" => "Dice of the permissible region in the body",
        "dice_held_out_sd" => "its standard deviation",
        "precision_held_out" => "precision at a score of 0.25 and an IoU of 0.5",
        "recall_held_out" => "recall at a score of 0.25 and an IoU of 0.5",
        "ap50_held_out" => "average precision at an IoU of 0.5",
        other => other,
    }
}

/// A card (Markdown) that says what a model is, what it was trained on and how its losses went, and claims nothing else. `files` are the
/// package's. What is known of its output is `evidence`, a section, or without one the draft's scores; `limits` are a person's words
/// on what it cannot do, where one has judged it.
pub fn card(
    draft: &Draft,
    checkpoint: &Weights,
    files: &[(String, Vec<u8>)],
    evidence: Option<&str>,
    limits: Option<&str>,
) -> String {
    let mut card = format!("# {}\n\nA `{}` model, {} parameters.", draft.name, draft.kind, draft.parameters);
    card += " It serves to make synthetic images; it is no diagnostic device.\n\n## Data\n\n";
    for data in &draft.training_data {
        let _ = writeln!(card, "- {}. {}. SHA-256 over the files: `{}`", data.name, data.licence, data.digest);
    }
    let _ = write!(card, "- Licence of the weights: {}\n\n## Training\n\n", draft.licence);
    let steps = checkpoint.metadata.get("step").or(checkpoint.metadata.get("steps"));
    let _ = writeln!(card, "{} steps.", steps.map_or("An unknown number of", String::as_str));
    if let Some(name) = checkpoint.metadata.get("perceptual") {
        let _ = writeln!(card, "The perceptual term was measured with {name}.");
    }
    if files.iter().any(|(name, _)| name == CURVES_FILE) {
        let _ = write!(card, "\n![losses]({CURVES_FILE})\n");
    }
    let unjudged = match evidence {
        Some(section) => {
            let _ = write!(card, "\n{section}");
            "Nobody has judged the samples: look at them before you use it."
        }
        None if draft.kind == Kind::SinganWhole => {
            card += "\n## Does it recite?\n\nIt has learned one image, and whatever it draws is that image rearranged: its samples are not \
                     anonymous, and are not meant to be.\n";
            "It draws one patient's image. Nobody has judged the samples: look at them before you use it."
        }
        None if draft.scores.is_empty() => {
            "Nobody has scored this model on images that it was not trained on, nor judged its output: look at both before you use it."
        }
        None => {
            card += "\n## Held-out scores\n\nOn images that were not trained on:\n\n| score | value |\n|---|---|\n";
            for (name, value) in &draft.scores {
                let _ = writeln!(card, "| {} | {value} |", meaning(name));
            }
            "The scores are of these images and say nothing of other patients and scanners. Nobody has judged the output: look at it \
             before you use it."
        }
    };
    let _ = writeln!(card, "\n## Limits\n\n{}", limits.map_or(unjudged, str::trim));
    card
}
