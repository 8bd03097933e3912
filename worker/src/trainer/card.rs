//! The model card: what was trained on what, how good it is, and crops beside the real images.

use std::{fmt::Write as _, str::FromStr};

use anyhow::Context as _;
use hiresmed_imaging::{
    Plane,
    sheet::{Tile, contact_sheet},
};
use hiresmed_inference::package::Draft;
use hiresmed_models::{
    training::{CURVES_FILE, History},
    vqgan,
    weights::Weights,
};

use super::evaluate::Held;

/// Side of a tile in the sheet of crops, pixels.
const TILE: usize = 288;

/// A square of a held-out image to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Crop {
    name: String,
    label: String,
    left: usize,
    top: usize,
    side: usize,
}

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is not NAME:LABEL:X,Y,SIDE");
        let mut parts = text.split(':');
        let (Some(name), Some(label), Some(place), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(fault());
        };
        let numbers: Vec<usize> = place.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| fault())?;
        let [left, top, side] = numbers[..] else { return Err(fault()) };
        if side == 0 {
            return Err(fault());
        }
        Ok(Self { name: name.to_owned(), label: label.to_owned(), left, top, side })
    }
}

impl Crop {
    fn of(&self, plane: &Plane) -> anyhow::Result<Plane> {
        let fits = self.left + self.side <= plane.width() && self.top + self.side <= plane.height();
        anyhow::ensure!(
            fits,
            "the crop {:?} leaves its image of {} x {} pixels",
            self.label,
            plane.width(),
            plane.height()
        );
        let pixel = |i: usize| plane.at(self.left + i % self.side, self.top + i / self.side);
        Ok(Plane::new(self.side, self.side, (0..self.side * self.side).map(pixel).collect()))
    }
}

/// A sheet with a row for each crop: the real image, the model's; `None` where no crop is asked for.
pub(super) fn crops(held: &[Held], crops: &[Crop]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut planes = Vec::new();
    for crop in crops {
        let image = held.iter().find(|held| held.name.ends_with(&crop.name));
        let image = image.with_context(|| format!("no held-out image is called {:?}", crop.name))?;
        planes.extend([crop.of(&image.real)?, crop.of(&image.reconstruction)?]);
    }
    let tiles: Vec<Tile> = planes.iter().map(|plane| Tile::normalised(plane, None)).collect();
    Ok((!tiles.is_empty()).then(|| contact_sheet(&tiles, 4, TILE)))
}

/// The card's text (Markdown).
pub(super) fn text(
    draft: &Draft,
    checkpoint: &Weights,
    held: &[Held],
    crops: &[Crop],
    limits: &str,
) -> anyhow::Result<String> {
    let value = |key: &str| checkpoint.metadata.get(key).with_context(|| format!("the checkpoint has no {key}"));
    let config: vqgan::Config = serde_json::from_str(value("configuration")?)?;
    let training: vqgan::Training = serde_json::from_str(value("training")?)?;
    let score = |name: &str| draft.scores.get(name).copied().unwrap_or(f64::NAN);
    let ct = draft.modality.is_none();
    let mut card = String::new();
    writeln!(card, "# {}\n", draft.name)?;
    writeln!(
        card,
        "{} for {}: an encoder, {} codes of length {}, a decoder; {} parameters. A token stands for \
         {} x {} pixels. It makes backgrounds for synthetic images; it is no diagnostic device.\n",
        match config.block {
            vqgan::Block::Hdfb => "HiResMed-VQGAN",
            vqgan::Block::HdfbLight => "HiResMed-VQGAN with light blocks",
            vqgan::Block::Residual => "VQGAN with residual blocks, the baseline,",
        },
        if ct { "grey CT slices" } else { "grey radiographs" },
        config.codes,
        config.latent,
        draft.parameters,
        config.stride(),
        config.stride()
    )?;
    writeln!(card, "## Data\n")?;
    for data in &draft.training_data {
        writeln!(card, "- {}. {}. SHA-256 over the files: `{}`", data.name, data.licence, data.digest)?;
    }
    writeln!(card, "- Licence of the weights: {}", draft.licence)?;
    writeln!(card, "\n## Training\n")?;
    writeln!(
        card,
        "Seed {}, {} of {} steps; crops {}; Adam, learning rate {} with a cosine; loss: {} L1 + {} MSE + {} quantisation{}{}. The \
         weights are their running average.\n",
        value("seed")?,
        value("step")?,
        training.steps,
        training
            .crops
            .iter()
            .filter(|crops| crops.from_step < training.steps)
            .map(|c| format!("{} x {}² from step {}", c.batch, c.size, c.from_step))
            .collect::<Vec<_>>()
            .join(", "),
        training.learning_rate,
        training.loss.absolute,
        training.loss.squared,
        training.loss.quantisation,
        match checkpoint.metadata.get("perceptual") {
            Some(name) => format!(" + {} perceptual, by {name}", training.loss.perceptual),
            None => String::new(),
        },
        match training.discriminator_start {
            Some(start) if training.loss.adversarial > 0.0 =>
                format!(" + {} adversarial from step {start}", training.loss.adversarial),
            _ => String::new(),
        },
    )?;
    if History::of(checkpoint)?.is_some() {
        writeln!(card, "![losses]({CURVES_FILE})\n")?;
    }
    writeln!(card, "## Held-out scores\n")?;
    writeln!(
        card,
        "{} images that were not trained on, over {}: PSNR {:.2} ± {:.2} dB, SSIM {:.4} ± {:.4} (mean ± SD).\n",
        held.len(),
        match draft.window.filter(|_| ct) {
            Some(window) => format!("a window of {} to {} HU", window.low, window.high),
            None => "their own display windows".to_owned(),
        },
        score("psnr_db"),
        score("psnr_db_sd"),
        score("ssim"),
        score("ssim_sd"),
    )?;
    writeln!(card, "| image | PSNR, dB | SSIM | codes in use |\n|---|---|---|---|")?;
    for held in held {
        writeln!(card, "| {} | {:.2} | {:.4} | {} |", held.name, held.psnr_db, held.ssim, held.codes)?;
    }
    if !crops.is_empty() {
        writeln!(card, "\n## Crops\n\n![crops](crops.png)\n")?;
        writeln!(
            card,
            "Pairs from left to right, the real image and the model's, each row two: {}.",
            crops.iter().map(|crop| crop.label.as_str()).collect::<Vec<_>>().join("; ")
        )?;
    }
    if !limits.trim().is_empty() {
        writeln!(card, "\n## Limits\n\n{}", limits.trim())?;
    }
    Ok(card)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crop_is_read_from_text() {
        let crop: Crop = "a/b:spine:10,20,64".parse().unwrap();
        assert_eq!(
            (crop.name.as_str(), crop.label.as_str(), crop.left, crop.top, crop.side),
            ("a/b", "spine", 10, 20, 64)
        );
        for wrong in ["", "a:b", "a:b:1,2", "a:b:1,2,0", "a:b:1,2,x", "a:b:1,2,3:d"] {
            assert!(wrong.parse::<Crop>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_crop_outside_the_image_is_refused() {
        let crop: Crop = "a:b:1,1,4".parse().unwrap();
        assert!(crop.of(&Plane::filled(4, 4, 0.0)).is_err());
        assert_eq!(crop.of(&Plane::filled(5, 5, 0.5)).unwrap(), Plane::filled(4, 4, 0.5));
    }
}
