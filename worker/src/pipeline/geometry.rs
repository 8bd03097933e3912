//! The geometry of a source image: how it is fitted into the plane that the networks see, and the way back to its own pixels.
//!
//! Both ways keep the extent: a pixel centre at (x + 1/2) / columns of the source is at the same share of its content in the plane.

use hiresmed_imaging::{
    Mask, Plane, Spacing,
    morphology::Bounds,
    resample::{Filter, resize, resize_mask_part},
};
use hiresmed_protocol::{outcome::Stage, request::Size};

use super::inputs::{no_spacing, resampled_size};
use crate::jobs::Failure;

/// A source image's own pixels, and where it lies in the plane of the request's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Columns of the source.
    pub columns: usize,
    /// Rows of the source.
    pub rows: usize,
    /// Distance of the source's pixel centres.
    pub spacing: Spacing,
    /// The source within the plane of the request's size.
    pub content: Bounds,
}

impl Geometry {
    /// Fits the whole of `plane`, in [-1, 1], into the request's size, centred: as large as possible, with square pixels whatever the
    /// source's are, or, where the request fixes the spacing, with pixels of that spacing, to half a pixel over the extent. Its outermost
    /// pixels are repeated around it: where air begins at a bright edge, an autoencoder darkens the edge. `name` stands for the
    /// source in errors.
    ///
    /// # Errors
    /// Permanent where nobody says how far the source's pixels lie apart, and where it would be cropped: what is cut off cannot be
    /// delivered in the source's geometry.
    pub fn fit(plane: Plane, size: &Size, name: &str) -> Result<(Plane, Self), Failure> {
        let (width, height) = (size.width as usize, size.height as usize);
        let wanted = size.spacing_mm.map(Spacing::square);
        // A picture without spacing has the one that the request declares.
        let spacing = plane.spacing.or(wanted).ok_or_else(|| no_spacing(name))?;
        let (columns, rows) = match wanted {
            Some(wanted) => {
                let (columns, rows) = resampled_size(&plane, spacing, wanted, size, name)?;
                if columns > width || rows > height {
                    return Err(cropped(name, wanted.column_mm, (columns, rows), (width, height)));
                }
                (columns, rows)
            }
            None => {
                let extent = (plane.width() as f64 * spacing.column_mm, plane.height() as f64 * spacing.row_mm);
                let mm = (extent.0 / width as f64).max(extent.1 / height as f64);
                let side = |extent: f64, most: usize| ((extent / mm).round() as usize).clamp(1, most);
                (side(extent.0, width), side(extent.1, height))
            }
        };
        let content = Bounds { left: (width - columns) / 2, top: (height - rows) / 2, width: columns, height: rows };
        let geometry = Self { columns: plane.width(), rows: plane.height(), spacing, content };
        let mut fitted = between(&plane, columns, rows);
        drop(plane);
        // A cubic overshoots.
        fitted.data_mut().iter_mut().for_each(|value| *value = value.clamp(-1.0, 1.0));
        let spacing = Some(geometry.plane_spacing());
        if (columns, rows) == (width, height) {
            return Ok((fitted.with_spacing(spacing), geometry));
        }
        Ok((extended(&fitted, &content, (width, height)).with_spacing(spacing), geometry))
    }

    /// `plane` with air around the content: what lies there is neither body nor a place for a lesion.
    pub fn in_air(&self, plane: Plane) -> Plane {
        if self.fills(&plane) {
            return plane;
        }
        let mut air = Plane::filled(plane.width(), plane.height(), -1.0).with_spacing(plane.spacing);
        air.paste(&plane.cropped(&self.content), self.content.left, self.content.top);
        air
    }

    /// The part of `plane` that shows the source.
    pub fn of_content(&self, plane: Plane) -> Plane {
        if self.fills(&plane) { plane } else { plane.cropped(&self.content) }
    }

    /// Whether `plane`, of the request's size, shows the source and nothing around it.
    pub fn fills(&self, plane: &Plane) -> bool {
        (self.content.width, self.content.height) == (plane.width(), plane.height())
    }

    /// Distance of pixel centres in the plane: that which makes the content's extent the source's.
    pub fn plane_spacing(&self) -> Spacing {
        Spacing {
            row_mm: self.spacing.row_mm * (self.rows as f64 / self.content.height as f64),
            column_mm: self.spacing.column_mm * (self.columns as f64 / self.content.width as f64),
        }
    }

    /// Pixels of the content for the larger side of a source pixel, at least 1: what is so far apart in the content is apart in the source.
    pub fn source_pixel(&self) -> f64 {
        let across = self.content.width as f64 / self.columns as f64;
        let down = self.content.height as f64 / self.rows as f64;
        across.max(down).max(1.0)
    }

    /// How far lesions are from each other and from the image's edge at least, in pixels of the content: two of the source's.
    pub fn margin_px(&self) -> usize {
        (2.0 * self.source_pixel()).ceil() as usize
    }

    /// The pixel of the content at a `position` [x, y] in pixels of the source; none outside of it.
    pub fn content_pixel(&self, [x, y]: [f64; 2]) -> Option<(usize, usize)> {
        let inside = |at: f64, from: usize, to: usize| {
            let at = (at + 0.5) / from as f64 * to as f64;
            (at >= 0.0 && at < to as f64).then_some(at as usize)
        };
        Some((inside(x, self.columns, self.content.width)?, inside(y, self.rows, self.content.height)?))
    }

    /// The pixel of the source that has the middle of a pixel of the content in it: where the source's pixels are no larger, the way
    /// back of [`content_pixel`](Self::content_pixel).
    pub fn pixel(&self, (x, y): (usize, usize)) -> (usize, usize) {
        let holding = |at: usize, from: usize, to: usize| (2 * at + 1) * to / (2 * from);
        (holding(x, self.content.width, self.columns), holding(y, self.content.height, self.rows))
    }

    /// An image of the content, in the source's pixels; a cubic overshoots, and nothing is clamped.
    pub fn image(&self, content: &Plane) -> Plane {
        between(content, self.columns, self.rows).with_spacing(Some(self.spacing))
    }

    /// A part of a mask of the content, its first pixel at column and row `at`, in the source's pixels with the first of them; smooth,
    /// and not empty where the part has a pixel inside the content.
    pub fn mask_part(&self, mask: &Mask, at: (i64, i64)) -> Option<(Mask, (usize, usize))> {
        resize_mask_part(mask, at, (self.content.width, self.content.height), (self.columns, self.rows))
    }

    /// A mask of the content in the source's pixels, smooth.
    pub fn mask(&self, content: &Mask) -> Mask {
        let mut mask = Mask::empty(self.columns, self.rows);
        if let Some((part, at)) = self.mask_part(content, (0, 0)) {
            mask.paste(&part, at.0, at.1);
        }
        mask
    }

    /// Weights over the content in the source's pixels: 0 where they are 0 at the content's pixel there.
    pub fn weights(&self, content: &Plane) -> Plane {
        let positive = Mask::new(
            content.width(),
            content.height(),
            content.data().iter().map(|&weight| u8::from(weight > 0.0)).collect(),
        );
        let positive = self.mask(&positive);
        let filter = if self.source_pixel() > 1.0 { Filter::Area } else { Filter::Bilinear };
        let mut weights = resize(content, self.columns, self.rows, filter);
        weights.data_mut().iter_mut().zip(positive.data()).for_each(|(weight, &set)| *weight *= f32::from(set));
        weights
    }
}

/// `plane` at another size: averaged over the area of a new pixel where an axis shrinks, so that nothing finer is folded into it, else
/// interpolated by a cubic.
fn between(plane: &Plane, width: usize, height: usize) -> Plane {
    let shrinks = width < plane.width() || height < plane.height();
    resize(plane, width, height, if shrinks { Filter::Area } else { Filter::Bicubic })
}

/// A plane of `size` (width, height) with `part` at `content`, its outermost pixels repeated around it.
fn extended(part: &Plane, content: &Bounds, (width, height): (usize, usize)) -> Plane {
    let mut data = Vec::with_capacity(width * height);
    for y in 0..height {
        let row = y.saturating_sub(content.top).min(content.height - 1);
        data.extend((0..width).map(|x| part.at(x.saturating_sub(content.left).min(content.width - 1), row)));
    }
    Plane::new(width, height, data)
}

fn cropped(name: &str, mm: f64, (columns, rows): (usize, usize), (width, height): (usize, usize)) -> Failure {
    Failure::permanent(
        Stage::Inputs,
        anyhow::anyhow!(
            "{name}: at {mm} mm it has {columns} x {rows} pixels, and {width} x {height} of them would be kept: what is cropped \
             cannot be delivered with output.geometry \"source\"; leave size.spacing_mm out to fit the whole image, enlarge size, or \
             set output.geometry to \"request\""
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32, spacing_mm: Option<f64>) -> Size {
        Size { width, height, spacing_mm }
    }

    /// Two smooth spots on a slope, whose centroids a resampling keeps. Columns and rows `spacing` apart.
    fn source(width: usize, height: usize, spacing: Spacing) -> Plane {
        let spot = |x: f64, y: f64, (across, down): (f64, f64)| {
            let (dx, dy) = ((x - across) * 9.0, (y - down) * 9.0);
            (-dx * dx - dy * dy).exp()
        };
        let value = |at: usize| {
            let (x, y) = ((at % width) as f64 / width as f64, (at / width) as f64 / height as f64);
            (-0.6 + 0.9 * spot(x, y, (0.3, 0.4)) + 0.4 * spot(x, y, (0.7, 0.6)) + 0.2 * x) as f32
        };
        Plane::new(width, height, (0..width * height).map(value).collect()).with_spacing(Some(spacing))
    }

    /// Sources of odd and even sizes, larger and smaller than the plane, of other proportions and with pixels that are not square.
    const SOURCES: [(usize, usize, f64, f64); 7] = [
        (329, 314, 0.14, 0.14),
        (330, 313, 0.14, 0.14),
        (128, 128, 0.7, 0.7),
        (61, 47, 1.0, 1.0),
        (64, 48, 0.5, 1.0),
        (300, 90, 0.2, 0.5),
        (129, 128, 0.7, 0.7),
    ];

    #[test]
    fn an_image_comes_back_where_it_was() {
        for (width, height, column_mm, row_mm) in SOURCES {
            let plane = source(width, height, Spacing { row_mm, column_mm });
            let (framed, geometry) = Geometry::fit(plane.clone(), &size(128, 96, None), "a.dcm").unwrap();
            let case = format!("{width} x {height}: {geometry:?}");
            assert_eq!((framed.width(), framed.height()), (128, 96), "{case}");
            let content = framed.cropped(&geometry.content);
            // The pixels are square to half a pixel over the content, and the extent is the source's.
            let spacing = framed.spacing.unwrap();
            let shorter = geometry.content.width.min(geometry.content.height) as f64;
            assert!((spacing.row_mm / spacing.column_mm - 1.0).abs() < 1.0 / shorter, "{case}");
            let back = geometry.image(&content);
            assert_eq!((back.width(), back.height(), back.spacing), (width, height, plane.spacing), "{case}");
            // A shift by a tenth of a pixel of the coarser image would show in the steepest place.
            let coarser = geometry.source_pixel() * spacing.column_mm.max(column_mm) / column_mm;
            let steepest = (1..width).map(|x| (plane.at(x, height * 2 / 5) - plane.at(x - 1, height * 2 / 5)).abs());
            let allowed = 0.02 + 0.1 * coarser as f32 * steepest.fold(0.0, f32::max);
            let worst = back.data().iter().zip(plane.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < allowed, "{case}: {worst} where {allowed} is allowed");
        }
    }

    #[test]
    fn the_pixel_of_the_source_leads_back_to_that_of_the_content() {
        for (width, height, column_mm, row_mm) in SOURCES {
            let plane = source(width, height, Spacing { row_mm, column_mm });
            let (_, geometry) = Geometry::fit(plane, &size(128, 96, None), "").unwrap();
            let larger = geometry.source_pixel() > 1.0;
            for at in (0..geometry.content.width).map(|x| (x, x % geometry.content.height)) {
                let (x, y) = geometry.pixel(at);
                let back = geometry.content_pixel([x as f64, y as f64]).unwrap();
                let away = back.0.abs_diff(at.0).max(back.1.abs_diff(at.1)) as f64;
                assert!(
                    away <= if larger { (geometry.source_pixel() + 1.0) / 2.0 } else { 0.0 },
                    "{at:?} {back:?} {geometry:?}"
                );
            }
        }
    }

    #[test]
    fn around_the_content_its_edge_is_repeated_for_the_networks_and_air_for_placement() {
        let data = (0..329 * 157).map(|at| (at / 329) as f32 / 157.0).collect();
        let ramp = Plane::new(329, 157, data).with_spacing(Some(Spacing::square(0.14)));
        let (framed, geometry) = Geometry::fit(ramp, &size(128, 256, None), "").unwrap();
        assert_eq!(geometry.content, Bounds { left: 0, top: 97, width: 128, height: 61 });
        assert!((0..256).all(|y| framed.at(5, y) == framed.at(5, y.clamp(97, 157))));
        let air = geometry.in_air(framed.clone());
        assert_eq!(air.cropped(&geometry.content), framed.cropped(&geometry.content));
        assert_eq!(air.data().iter().filter(|&&value| value == -1.0).count(), 128 * 195);
        // A source of the plane's own size is neither resampled nor framed, and comes back as it was.
        let own = source(128, 96, Spacing::square(0.7));
        let (framed, geometry) = Geometry::fit(own.clone(), &size(128, 96, None), "").unwrap();
        assert!(framed == own && geometry.image(&framed) == own && geometry.in_air(framed) == own);
    }

    #[test]
    fn a_fixed_spacing_is_kept_where_nothing_is_cropped_and_refused_where_it_would_be() {
        let plane = source(300, 200, Spacing::square(0.3));
        let (framed, geometry) = Geometry::fit(plane.clone(), &size(128, 128, Some(0.9)), "a.dcm").unwrap();
        assert_eq!((geometry.content.width, geometry.content.height), (100, 67));
        let spacing = framed.spacing.unwrap();
        assert!(
            (spacing.column_mm - 0.9).abs() < 1e-9 && (spacing.row_mm - 0.9).abs() < 0.9 * 0.5 / 67.0,
            "{spacing:?}"
        );
        let failure = Geometry::fit(plane.clone(), &size(128, 128, Some(0.5)), "wide.dcm").unwrap_err().to_string();
        for part in ["wide.dcm", "at 0.5 mm it has 180 x 120 pixels", "128 x 128", "leave size.spacing_mm out"] {
            assert!(failure.contains(part), "{part} in {failure}");
        }
        // A picture has the spacing that the request declares, and needs one.
        let picture = plane.with_spacing(None);
        let failure = Geometry::fit(picture.clone(), &size(512, 512, None), "a.png").unwrap_err().to_string();
        assert!(failure.contains("a.png") && failure.contains("give size.spacing_mm"), "{failure}");
        let (_, geometry) = Geometry::fit(picture, &size(512, 512, Some(0.4)), "a.png").unwrap();
        assert_eq!((geometry.spacing, geometry.content.width), (Spacing::square(0.4), 300));
    }

    #[test]
    fn positions_lie_in_the_content_where_they_lay_in_the_source() {
        for (width, height, column_mm, row_mm) in SOURCES {
            let plane = Plane::filled(width, height, 0.0).with_spacing(Some(Spacing { row_mm, column_mm }));
            let (_, geometry) = Geometry::fit(plane, &size(128, 96, None), "").unwrap();
            for [x, y] in [[0.0, 0.0], [width as f64 / 3.0, 20.5], [width as f64 - 1.0, height as f64 - 1.0]] {
                let (column, row) = geometry.content_pixel([x, y]).unwrap();
                let back = |at: usize, from: usize, to: usize| (at as f64 + 0.5) * to as f64 / from as f64 - 0.5;
                let (across, down) =
                    (back(column, geometry.content.width, width), back(row, geometry.content.height, height));
                let most = |from: usize, to: usize| 0.5 * to as f64 / from as f64 + 1e-9;
                assert!((across - x).abs() <= most(geometry.content.width, width), "{x} became {across}");
                assert!((down - y).abs() <= most(geometry.content.height, height), "{y} became {down}");
            }
            assert_eq!(geometry.content_pixel([width as f64, 3.0]), None);
            assert_eq!(geometry.content_pixel([3.0, -1.0]), None);
        }
    }

    #[test]
    fn lesions_come_back_with_their_size_apart_and_at_their_place() {
        let disc = |radius: f64| {
            let side = 2 * radius.ceil() as usize + 3;
            let middle = (side as f64 - 1.0) / 2.0;
            Mask::from_fn(side, side, |x, y| (x as f64 - middle).hypot(y as f64 - middle) <= radius)
        };
        for (width, height, column_mm, row_mm) in SOURCES {
            let plane = Plane::filled(width, height, 0.0).with_spacing(Some(Spacing { row_mm, column_mm }));
            let (framed, geometry) = Geometry::fit(plane, &size(128, 96, None), "").unwrap();
            let spacing = framed.spacing.unwrap();
            let gap = (2.0 * geometry.source_pixel()).ceil().max(5.0) as i64;
            for radius in [1.5, 3.0, 7.4] {
                let mask = disc(radius);
                let second = 9 + mask.width() as i64 - 2 + gap;
                let parts = [9, second].map(|left| geometry.mask_part(&mask, (left, 8)).unwrap());
                let case = format!("{radius} px in {width} x {height}");
                let mut union = Mask::empty(width, height);
                for (part, (left, top)) in &parts {
                    union.paste(part, *left, *top);
                    let (found, asked) =
                        (part.longest_diameter_mm(geometry.spacing), mask.longest_diameter_mm(spacing));
                    let pixel_mm = spacing.column_mm.max(spacing.row_mm).max(column_mm).max(row_mm);
                    assert!((found - asked).abs() <= pixel_mm, "{case}: {found} mm of {asked}");
                }
                assert_eq!(union.components().len(), 2, "{case}: two lesions, apart");
                assert_eq!(union.area(), parts[0].0.area() + parts[1].0.area(), "{case}");
            }
        }
    }

    #[test]
    fn weights_are_zero_where_they_were() {
        let plane = Plane::filled(330, 313, 0.0).with_spacing(Some(Spacing::square(0.14)));
        let (_, geometry) = Geometry::fit(plane, &size(128, 128, None), "").unwrap();
        let mut content = Plane::filled(geometry.content.width, geometry.content.height, 0.0);
        (40..60).for_each(|x| (30..50).for_each(|y| content.set(x, y, 0.25)));
        let weights = geometry.weights(&content);
        assert_eq!((weights.width(), weights.height()), (330, 313));
        let factor = 330.0 / geometry.content.width as f64;
        for (at, &weight) in weights.data().iter().enumerate() {
            let (x, y) = (((at % 330) as f64 + 0.5) / factor, ((at / 330) as f64 + 0.5) / factor);
            let outside = |at: f64, from: f64, to: f64| at < from - 0.6 || at > to + 0.6;
            assert!(weight == 0.0 || !(outside(x, 40.0, 60.0) || outside(y, 30.0, 50.0)), "{x} {y}: {weight}");
            let inside = (41.0..59.0).contains(&x) && (31.0..49.0).contains(&y);
            assert!(!inside || (weight - 0.25).abs() < 1e-5, "{x} {y}: {weight}");
        }
    }
}
