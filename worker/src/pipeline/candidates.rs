//! Where a lesion may go in an image, before any is made (paper, equation 16): what `hiresmed candidates` shows and the job of
//! this name finds.

use std::ops::RangeInclusive;

use hiresmed_compositing::placement::{Candidates, Placer, Rules};
use hiresmed_imaging::{Mask, Plane, Spacing, Window};
use hiresmed_protocol::{
    outcome::{Candidate, FoundCandidates, Stage},
    request::{self, Modality},
};

use super::{Geometry, Locator, inputs::for_networks, placement::border_px};
use crate::jobs::Failure;

/// Distances of pixel centres in millimetres that can be used, as in requests.
pub const SPACING_MM: RangeInclusive<f64> = 0.05..=5.0;

/// The window over which an image is normalised for the models that say where a lesion may be.
pub(super) fn window(modality: Modality) -> Window {
    match modality {
        Modality::Ct => Window::LUNG_CT,
        Modality::Kub => Window::RADIOGRAPH,
    }
}

/// The image in `bytes`, in [-1, 1], as it is. `name` stands for the file in errors.
///
/// # Errors
/// Permanent where it cannot be decoded correctly, or is of another modality.
pub fn read(bytes: &[u8], name: &str, modality: Modality) -> Result<Plane, Failure> {
    super::decode(bytes, name, window(modality), modality)
}

/// The image that a request is for, as the source of a synthesis request of that size and geometry.
///
/// # Errors
/// Those of [`read`]; permanent where it cannot be brought to the size.
pub fn read_for(wanted: &request::Candidates, bytes: &[u8], name: &str) -> Result<(Plane, Option<Geometry>), Failure> {
    for_networks(read(bytes, name, wanted.modality)?, &wanted.size, wanted.geometry, name)
}

/// The distance of an image's pixel centres, if it can be used. `name` stands for the file in errors, `next` says how to give
/// the distance where the file does not.
///
/// # Errors
/// Permanent where it is not known, or is out of [`SPACING_MM`].
pub fn usable_spacing(plane: &Plane, name: &str, next: &str) -> Result<Spacing, Failure> {
    let refuse = |text: String| Failure::permanent(Stage::Inputs, anyhow::anyhow!(text));
    let (least, most) = (SPACING_MM.start(), SPACING_MM.end());
    match plane.spacing {
        None => Err(refuse(format!("{name} does not say how far its pixels lie apart; {next}"))),
        Some(spacing) if [spacing.row_mm, spacing.column_mm].iter().all(|mm| SPACING_MM.contains(mm)) => Ok(spacing),
        Some(Spacing { row_mm, column_mm }) => Err(refuse(format!(
            "{name} says that its pixels lie {row_mm} x {column_mm} mm apart, and {least} to {most} mm can be used; export it \
             again from its source"
        ))),
    }
}

impl Locator {
    /// C_final of equation 16 for a round lesion of `diameter_mm` in `plane`, an image in [-1, 1] with pixels `spacing` apart,
    /// and its `count` likeliest positions: in pixels of `plane`, or of the source that is fitted into it. The rules are those of a
    /// synthesis request that says nothing of them.
    ///
    /// # Errors
    /// Permanent where a model refuses the image, no body is found in it, or the lesion fits nowhere.
    pub fn candidates(
        &self,
        plane: &Plane,
        spacing: Spacing,
        geometry: Option<&Geometry>,
        diameter_mm: f64,
        count: usize,
    ) -> Result<(FoundCandidates, Candidates), Failure> {
        let anatomy = match geometry {
            Some(geometry) => self.anatomy(&geometry.in_air(plane.clone()))?.of_content(geometry),
            None => self.anatomy(plane)?,
        };
        let spacing_mm = (spacing.row_mm * spacing.column_mm).sqrt();
        let diameter_px = diameter_mm / spacing_mm;
        let least_px = geometry.map_or(0, Geometry::margin_px);
        let rules = Rules { border_px: border_px(spacing_mm).max(least_px), ..Rules::default() };
        let candidates = Placer::new(anatomy.scene(), rules)
            .and_then(|placer| placer.candidates(&disc(diameter_px)))
            .map_err(|error| {
            let error = anyhow::Error::new(error).context(format!("a lesion of {diameter_mm} mm"));
            Failure::permanent(Stage::Placement, error)
        })?;
        let peaks = candidates.peaks(count, (diameter_px.ceil() as usize).max(least_px));
        let peaks = peaks.into_iter().map(|peak| ((peak.x, peak.y), peak.weight));
        type Positions = Vec<((usize, usize), f64)>;
        let (size, spacing, allowed, positions): (_, _, _, Positions) = match geometry {
            None => ((plane.width(), plane.height()), spacing, candidates.allowed.area(), peaks.collect()),
            Some(geometry) => {
                // A position is a whole pixel of the source. Where those are the larger ones, a lesion that is pinned to it comes to lie
                // beside the peak, where there must be room as well.
                let has_room = |(x, y): (usize, usize)| {
                    let pinned = geometry.content_pixel([x as f64, y as f64]);
                    pinned.is_some_and(|(x, y)| candidates.map.at(x, y) > 0.0)
                };
                let positions = peaks.map(|(at, weight)| (geometry.pixel(at), weight));
                let positions = positions.filter(|(at, _)| has_room(*at)).collect();
                let allowed = geometry.mask(&candidates.allowed).area();
                ((geometry.columns, geometry.rows), geometry.spacing, allowed, positions)
            }
        };
        let candidate = |((x, y), weight)| Candidate { x: x as u32, y: y as u32, weight };
        let found = FoundCandidates {
            width: size.0 as u32,
            height: size.1 as u32,
            spacing_mm: [spacing.row_mm, spacing.column_mm],
            diameter_mm,
            allowed_px: allowed as u64,
            candidates: positions.into_iter().map(candidate).collect(),
        };
        Ok((found, candidates))
    }
}

/// A round lesion.
fn disc(diameter_px: f64) -> Mask {
    let side = diameter_px.ceil().max(1.0) as usize;
    let middle = (side as f64 - 1.0) / 2.0;
    let radius = (diameter_px / 2.0).max(0.5);
    Mask::from_fn(side, side, |x, y| (x as f64 - middle).hypot(y as f64 - middle) <= radius)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disc_has_its_diameter() {
        for diameter in [1.0, 2.0, 5.7, 12.0, 17.0] {
            let area = std::f64::consts::PI * diameter * diameter / 4.0;
            let found = disc(diameter).area() as f64;
            assert!((found - area).abs() <= 0.35 * area + 1.0, "{diameter}: {found} pixels, {area:.1} expected");
        }
    }

    #[test]
    fn a_spacing_that_cannot_be_used_is_refused_by_name() {
        let spacing = |spacing: Option<Spacing>| {
            let plane = Plane::filled(8, 8, 0.0).with_spacing(spacing);
            usable_spacing(&plane, "a.png", "give size.spacing_mm").map_err(|failure| failure.to_string())
        };
        assert_eq!(spacing(Some(Spacing::square(0.7))), Ok(Spacing::square(0.7)));
        assert!(
            spacing(None)
                .unwrap_err()
                .contains("a.png does not say how far its pixels lie apart; give size.spacing_mm")
        );
        let wide = spacing(Some(Spacing { row_mm: 0.7, column_mm: 50.0 })).unwrap_err();
        assert!(wide.contains("0.7 x 50 mm apart, and 0.05 to 5 mm can be used"), "{wide}");
    }
}
