//! A DICOM image object: what it says about itself, and its frames, decoded one at a time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

use super::attributes::Attributes;
use super::codec::{Codec, Colour, Decoded, Layout, jpeg_ls, native_frame_bytes};
use super::dataset::{self, Dataset, Encoding, Value};
use super::envelope::{self, Envelope};
use super::frames;
use super::lut::Lut;
use crate::{Error, Fault, Plane, Window};

/// Bounds on what a file may cost.
#[derive(Debug, Clone, Copy)]
pub struct ReadOptions {
    /// Largest file, inflated data set, and decoded frame, in bytes each.
    pub limit_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { limit_bytes: 1 << 30 }
    }
}

/// One frame's stored values, before rescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Interleaved by pixel, row-major, `rows * columns * samples`; RGB where the object is YBR.
    pub values: Vec<i64>,
    /// Samples per pixel: 1 or 3.
    pub samples: usize,
}

/// One frame's stored values in 32 bits.
pub(super) struct Words<'a> {
    /// As [`Frame::values`], but for the sign of what takes all 32 bits.
    pub values: Vec<u32>,
    /// Where it was read, the scan that [`jpeg_ls::encode`] makes of the values' stored bits.
    pub scan: Option<jpeg_ls::Scan<'a>>,
}

/// An image object whose Pixel Data is known to be there in full. Frames are decoded when they are asked for.
#[derive(Debug, Clone)]
pub struct DicomImage {
    file: PathBuf,
    /// What the object says about its pixels.
    pub attributes: Attributes,
    /// The tables of modality and VOI; `None` where there is none, or it contradicts itself.
    modality_lut: Option<Lut>,
    voi_lut: Option<Lut>,
    layout: Layout,
    codec: Codec,
    /// Bytes of a pixel that is a floating point number.
    float: Option<usize>,
    /// All native pixel data, or a code stream per frame.
    pixel_data: Vec<Vec<u8>>,
    frames: usize,
}

/// Reads the DICOM image at `path` with the default [`ReadOptions`].
///
/// # Errors
/// [`Error`] with the file and the cause: unreadable, no DICOM, truncated, no pixel data, contradictory, unsupported.
pub fn read(path: impl AsRef<Path>) -> Result<DicomImage, Error> {
    read_with(path, ReadOptions::default())
}

/// [`read`] under the caller's bounds.
///
/// # Errors
/// As [`read`].
pub fn read_with(path: impl AsRef<Path>, options: ReadOptions) -> Result<DicomImage, Error> {
    let path = path.as_ref();
    let bytes = read_bounded(path, options).map_err(|fault| Error::new(path, fault))?;
    from_bytes(&bytes, path, options)
}

/// Reads the DICOM image in `bytes`; `name` stands for the file in errors.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(bytes: &[u8], name: impl AsRef<Path>, options: ReadOptions) -> Result<DicomImage, Error> {
    let (_, image) = describe(bytes, name.as_ref(), options);
    image.map_err(|fault| Error::new(name, fault))
}

pub(crate) fn read_bounded(path: &Path, options: ReadOptions) -> Result<Vec<u8>, Fault> {
    let size = std::fs::metadata(path)?.len();
    if size > options.limit_bytes {
        return Err(Fault::TooLarge { what: "the file", needed: size, limit: options.limit_bytes });
    }
    Ok(std::fs::read(path)?)
}

/// The attributes as far as they can be read, and the image or the reason why there is none.
pub(crate) fn describe(bytes: &[u8], name: &Path, options: ReadOptions) -> (Attributes, Result<DicomImage, Fault>) {
    let envelope = match envelope::open(bytes, options.limit_bytes) {
        Ok(envelope) => envelope,
        Err(fault) => return (Attributes::default(), Err(fault)),
    };
    describe_dataset(&envelope, dataset::parse(&envelope.data, envelope.encoding), name, options).1
}

/// As [`describe`], of a data set and the fault that ended it; gives the data set back.
pub(super) fn describe_dataset<'a>(
    envelope: &Envelope<'_>,
    (dataset, ended): (Dataset<'a>, Option<Fault>),
    name: &Path,
    options: ReadOptions,
) -> (Dataset<'a>, (Attributes, Result<DicomImage, Fault>)) {
    let attributes = Attributes::read(&dataset, envelope.transfer_syntax.clone());
    let image = build(&dataset, &attributes, ended, envelope.has_meta, name, options);
    (dataset, (attributes, image))
}

fn build(
    dataset: &Dataset<'_>,
    attributes: &Attributes,
    ended: Option<Fault>,
    has_meta: bool,
    name: &Path,
    options: ReadOptions,
) -> Result<DicomImage, Fault> {
    // Pixels are whole numbers or floating point numbers of 32 or 64 bits (PS3.3 C.7.6.3, C.7.6.24, C.7.6.25).
    let kinds = [(tags::PIXEL_DATA, None), (tags::FLOAT_PIXEL_DATA, Some(4)), (tags::DOUBLE_FLOAT_PIXEL_DATA, Some(8))];
    let found = kinds.into_iter().find_map(|(tag, float)| Some((dataset.get(tag)?, float)));
    let Some((pixel_data, float)) = found else { return Err(ended.unwrap_or(Fault::NoPixelData)) };
    if has_meta && attributes.transfer_syntax.is_none() {
        return Err(Fault::Malformed("the file meta information has no Transfer Syntax UID (0002,0010)".into()));
    }
    let codec = Codec::of(attributes.transfer_syntax.as_deref())?;
    let layout = layout(dataset, attributes, float, options)?;
    let frames = attributes
        .frames
        .ok_or_else(|| Fault::Malformed("Number of Frames (0028,0008) is not a positive integer".into()))?
        as usize;
    let frame_bytes = layout.pixels() as u64 * layout.samples as u64 * 8;
    if frame_bytes > options.limit_bytes {
        return Err(Fault::TooLarge { what: "a decoded frame", needed: frame_bytes, limit: options.limit_bytes });
    }
    let pixel_data = match pixel_data {
        Value::Bytes(bytes) if codec == Codec::Native => {
            let declared = match float {
                Some(width) => (layout.pixels() as u64 * width as u64).saturating_mul(frames as u64),
                None => native_frame_bytes(&layout, frames),
            };
            let available = bytes.len() as u64;
            if available < declared {
                let what = format!("the pixel data of {} x {} x {frames}", layout.columns, layout.rows);
                return Err(Fault::Truncated { what, declared, available });
            }
            vec![bytes.to_vec()]
        }
        // Fragments that end early are worth a better message than the missing ones behind them.
        Value::Fragments(fragments) if codec != Codec::Native && float.is_none() => match ended {
            Some(fault) => return Err(fault),
            None => frames::split(fragments, frames)?,
        },
        _ => {
            return Err(Fault::Malformed(
                "the transfer syntax and the pixel data's encapsulation contradict each other".into(),
            ));
        }
    };
    let lut = |tag| dataset.item(tag).and_then(|item| Lut::read(item, attributes.signed()));
    Ok(DicomImage {
        file: name.to_path_buf(),
        attributes: attributes.clone(),
        modality_lut: lut(tags::MODALITY_LUT_SEQUENCE),
        voi_lut: lut(tags::VOILUT_SEQUENCE),
        layout,
        codec,
        float,
        pixel_data,
        frames,
    })
}

/// Sizes that are present, agree with each other and with the photometric interpretation. `float`: bytes of a pixel that is a floating
/// point number, of which all bits are stored.
fn layout(
    dataset: &Dataset<'_>,
    attributes: &Attributes,
    float: Option<usize>,
    options: ReadOptions,
) -> Result<Layout, Fault> {
    let need = |value: Option<u16>, name: &str| {
        value.map(usize::from).ok_or_else(|| Fault::Malformed(format!("{name} is missing")))
    };
    let rows = need(attributes.rows, "Rows (0028,0010)")?;
    let columns = need(attributes.columns, "Columns (0028,0011)")?;
    let bits_allocated = need(attributes.bits_allocated, "Bits Allocated (0028,0100)")?;
    let (bits_stored, high_bit) = match float {
        Some(_) => (bits_allocated, bits_allocated.saturating_sub(1)),
        None => (
            need(attributes.bits_stored, "Bits Stored (0028,0101)")?,
            need(attributes.high_bit, "High Bit (0028,0102)")?,
        ),
    };
    let samples = need(attributes.samples, "Samples per Pixel (0028,0002)")?;
    let photometric = attributes
        .photometric
        .clone()
        .ok_or_else(|| Fault::Malformed("Photometric Interpretation (0028,0004) is missing".into()))?;
    if rows == 0 || columns == 0 {
        return Err(Fault::Malformed(format!("an image of {columns} x {rows} pixels")));
    }
    if float.is_some_and(|width| bits_allocated != 8 * width || photometric != "MONOCHROME2") {
        return Err(Fault::Malformed(format!(
            "floating point pixels of {bits_allocated} bits allocated and photometric interpretation {photometric}"
        )));
    }
    if float.is_none() && ![1, 8, 16, 32].contains(&bits_allocated) {
        return Err(Fault::Unsupported(format!("{bits_allocated} bits allocated")));
    }
    if bits_stored == 0 || bits_stored > high_bit + 1 || high_bit >= bits_allocated {
        return Err(Fault::Malformed(format!(
            "{bits_stored} bits stored, high bit {high_bit} and {bits_allocated} bits allocated contradict each other"
        )));
    }
    let expected = match photometric.as_str() {
        "MONOCHROME1" | "MONOCHROME2" | "PALETTE COLOR" => 1,
        "RGB" | "YBR_FULL" | "YBR_FULL_422" | "YBR_ICT" | "YBR_RCT" | "XYB" => 3,
        other => return Err(Fault::Unsupported(format!("photometric interpretation {other}"))),
    };
    if samples != expected {
        return Err(Fault::Malformed(format!(
            "{samples} samples per pixel for photometric interpretation {photometric}"
        )));
    }
    if photometric.starts_with("YBR") && bits_allocated != 8 {
        return Err(Fault::Unsupported(format!("{photometric} of {bits_allocated} bits")));
    }
    if photometric == "YBR_FULL_422" && columns % 2 != 0 {
        return Err(Fault::Malformed("YBR_FULL_422 with an odd number of columns".into()));
    }
    Ok(Layout {
        rows,
        columns,
        samples,
        bits_allocated,
        bits_stored,
        high_bit,
        signed: attributes.signed(),
        planar: attributes.planar_configuration == Some(1),
        big_endian: dataset.encoding() == Encoding::BigEndian,
        words: dataset.vr(tags::PIXEL_DATA) == Some(*b"OW"),
        photometric,
        limit_bytes: options.limit_bytes,
    })
}

impl DicomImage {
    /// Number of frames, at least 1.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Columns of a frame.
    pub fn width(&self) -> usize {
        self.layout.columns
    }

    /// Rows of a frame.
    pub fn height(&self) -> usize {
        self.layout.rows
    }

    /// The file, or the name for bytes that came from elsewhere.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Whether a pixel is one grey value.
    pub fn is_grey(&self) -> bool {
        self.layout.photometric.starts_with("MONOCHROME")
    }

    /// The stored values of frame `index`, from 0.
    ///
    /// # Errors
    /// [`Fault::Decode`] when the codec refuses, or [`Fault::Malformed`] for an index that is not there.
    pub fn frame(&self, index: usize) -> Result<Frame, Error> {
        self.decode(index).map_err(|fault| Error::new(&self.file, fault))
    }

    /// Whether pixels are floating point numbers, which [`real_frame`](Self::real_frame) gives.
    pub fn is_real(&self) -> bool {
        self.float.is_some()
    }

    /// The stored floating point numbers of frame `index`, from 0; row-major.
    ///
    /// # Errors
    /// [`Fault::Malformed`] where pixels are whole numbers, and for an index that is not there.
    pub fn real_frame(&self, index: usize) -> Result<Vec<f64>, Error> {
        let width = self.float.ok_or_else(|| Fault::Malformed("its pixels are whole numbers".into()));
        width.and_then(|width| self.reals(index, width)).map_err(|fault| Error::new(&self.file, fault))
    }

    fn reals(&self, index: usize, width: usize) -> Result<Vec<f64>, Fault> {
        let length = self.layout.pixels() * width;
        let bytes = self.pixel_data[0].get(index.saturating_mul(length)..).and_then(|rest| rest.get(..length));
        let bytes = bytes.filter(|_| index < self.frames).ok_or_else(|| self.no_frame(index))?;
        Ok(match (width, self.layout.big_endian) {
            (4, false) => bytes.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word).into()).collect(),
            (4, true) => bytes.as_chunks().0.iter().map(|&word| f32::from_be_bytes(word).into()).collect(),
            (_, false) => bytes.as_chunks().0.iter().map(|&word| f64::from_le_bytes(word)).collect(),
            (_, true) => bytes.as_chunks().0.iter().map(|&word| f64::from_be_bytes(word)).collect(),
        })
    }

    fn no_frame(&self, index: usize) -> Fault {
        Fault::Malformed(format!("frame {index} was asked for, there are {}", self.frames))
    }

    fn decode(&self, index: usize) -> Result<Frame, Fault> {
        let Decoded { raw, colour, .. } = self.samples(index)?;
        let values: Vec<i64> = raw.iter().map(|&raw| self.layout.stored(raw)).collect();
        let values = if colour == Colour::Ybr { to_rgb(&values) } else { values };
        Ok(Frame { values, samples: self.layout.samples })
    }

    /// The stored values of frame `index`, as they are written again.
    ///
    /// # Errors
    /// As [`frame`](Self::frame).
    pub(super) fn words(&self, index: usize) -> Result<Words<'_>, Error> {
        let bits = self.layout.bits_stored;
        let words = |Decoded { raw, colour, scan }| Words {
            values: match colour {
                Colour::AsIs => raw.into_iter().map(self.layout.word()).collect(),
                Colour::Ybr => {
                    let values: Vec<i64> = raw.iter().map(|&raw| self.layout.stored(raw)).collect();
                    to_rgb(&values).into_iter().map(|value| value as u32).collect()
                }
            },
            scan: scan.filter(|scan| scan.bits as usize == bits && self.layout.high_bit + 1 == bits),
        };
        self.samples(index).map(words).map_err(|fault| Error::new(&self.file, fault))
    }

    /// Samples of a frame as the codec gives them.
    fn samples(&self, index: usize) -> Result<Decoded<'_>, Fault> {
        if self.is_real() {
            return Err(Fault::Unsupported("floating point pixel data where whole numbers are needed".into()));
        }
        if index >= self.frames {
            return Err(self.no_frame(index));
        }
        let bytes = if self.codec == Codec::Native { &self.pixel_data[0] } else { &self.pixel_data[index] };
        // Decoders are other people's code over hostile bytes: a panic in one is a refusal of this file, nothing more.
        // Nothing that they borrow is changed, so that no broken state can be seen afterwards.
        catch_unwind(AssertUnwindSafe(|| self.codec.decode(bytes, index, &self.layout)))
            .unwrap_or_else(|_| Err(self.refusal(index, "the decoder failed on damaged data")))
    }

    fn refusal(&self, frame: usize, reason: &str) -> Fault {
        Fault::Decode { frame, codec: self.codec.name(), reason: reason.into() }
    }

    /// Frame `index` as a plane in real-world units (Hounsfield units for CT): Rescale Slope and Intercept applied, or the Modality
    /// LUT, spacing attached.
    ///
    /// In every plane a larger value is displayed brighter: MONOCHROME1 values are mirrored in the range of Bits Stored
    /// before the rescale (`2^bits - 1 - v`, or `-1 - v` when signed), or in the range of the LUT. Pixels that hold nothing (Pixel Padding
    /// Value) get the least value of those that hold something.
    ///
    /// # Errors
    /// As [`frame`](Self::frame); [`Fault::Colour`] for colour, [`Fault::Malformed`] for a Modality LUT that contradicts itself.
    pub fn to_plane(&self, index: usize) -> Result<Plane, Error> {
        let mut data = self.real_world(index).map_err(|fault| Error::new(&self.file, fault))?;
        if let Some((padding, least)) = data.padding {
            let padded = data.values.iter_mut().zip(padding).filter(|(_, padded)| *padded);
            padded.for_each(|(value, _)| *value = least);
        }
        Ok(Plane::new(self.layout.columns, self.layout.rows, data.values).with_spacing(self.attributes.spacing))
    }

    /// Frame `index` after the modality transformation, inverted where the object is.
    fn real_world(&self, index: usize) -> Result<RealWorld, Fault> {
        if !self.is_grey() {
            return Err(Fault::Colour(self.layout.photometric.clone()));
        }
        if let Some(width) = self.float {
            let stored = self.reals(index, width)?;
            let values = self.rescaled(stored.iter().copied())?;
            return Ok(self.with_padding(values, stored.into_iter()));
        }
        let samples = self.samples(index)?;
        let stored = samples.raw.iter().map(|&raw| self.layout.stored(raw) as f64);
        let mirror = match (self.layout.photometric.as_str(), self.layout.signed) {
            ("MONOCHROME1", false) => Some((1i64 << self.layout.bits_stored) - 1),
            ("MONOCHROME1", true) => Some(-1),
            _ => None,
        };
        let values = if self.attributes.modality_lut && self.attributes.rescale_slope.is_none() {
            let lut = self.modality_lut.as_ref();
            let lut =
                lut.ok_or_else(|| Fault::Malformed("the Modality LUT Sequence (0028,3000) contradicts itself".into()))?;
            let grey = stored.clone().map(|stored| f64::from(lut.at(stored)));
            grey.map(|grey| if mirror.is_some() { lut.most() - grey } else { grey } as f32).collect()
        } else {
            match mirror {
                None if self.layout.bits_stored < 32 => {
                    let word = self.layout.word();
                    self.rescaled(samples.raw.iter().map(|&raw| f64::from(word(raw) as i32)))?
                }
                None => self.rescaled(stored.clone())?,
                Some(sum) => self.rescaled(stored.clone().map(|stored| sum as f64 - stored))?,
            }
        };
        Ok(self.with_padding(values, stored))
    }

    fn rescaled(&self, stored: impl Iterator<Item = f64>) -> Result<Vec<f32>, Fault> {
        let slope = self.attributes.rescale_slope.unwrap_or(1.0);
        if slope == 0.0 {
            return Err(Fault::Malformed("Rescale Slope (0028,1053) is 0".into()));
        }
        let intercept = self.attributes.rescale_intercept.unwrap_or(0.0);
        Ok(stored.map(|stored| (stored * slope + intercept) as f32).collect())
    }

    /// `values` with those that hold nothing, by the stored values that they come from.
    fn with_padding(&self, values: Vec<f32>, stored: impl Iterator<Item = f64>) -> RealWorld {
        let padding = self.attributes.padding.and_then(|[least, most]| {
            let padding: Vec<bool> = stored.map(|stored| (least..=most).contains(&stored)).collect();
            let held = values.iter().zip(&padding).filter(|(value, padded)| !**padded && value.is_finite());
            // Where nothing is held, all stays as it is.
            held.map(|(value, _)| *value).reduce(f32::min).map(|least| (padding, least))
        });
        RealWorld { values, padding }
    }
}

/// A frame's values, and, where some pixels hold nothing, which those are and the least value of the others.
struct RealWorld {
    values: Vec<f32>,
    padding: Option<(Vec<bool>, f32)>,
}

impl DicomImage {
    /// Frame `index` as the file wants it shown, and the values that are black and white in it: [`to_plane`](Self::to_plane) and
    /// [`display_window`](Self::display_window), or, where the file shows its values by a sigmoid or a table, what that gives, from 0 to 1.
    ///
    /// # Errors
    /// As those two.
    pub fn shown(&self, index: usize) -> Result<(Plane, Window), Error> {
        let mut plane = self.to_plane(index)?;
        let Some(show) = self.curve() else { return Ok((plane, self.display_window()?)) };
        let mirror = self.mirror();
        for value in plane.data_mut() {
            // The file speaks of values before they are inverted.
            *value = match mirror {
                Some(sum) => 1.0 - show(sum - f64::from(*value)),
                None => show(f64::from(*value)),
            } as f32;
        }
        Ok((plane, Window { low: 0.0, high: 1.0 }))
    }

    /// How the file shows its values where not by a straight line (PS3.3 C.11.2.1.1, C.11.2.1.3), to 0 to 1. A table comes behind a window:
    /// of the two, a reader may choose.
    fn curve(&self) -> Option<Box<dyn Fn(f64) -> f64 + '_>> {
        let attributes = &self.attributes;
        let first = |values: &Option<Vec<f64>>| values.as_ref().and_then(|values| values.first().copied());
        match (first(&attributes.window_center), first(&attributes.window_width)) {
            (Some(center), Some(width)) if attributes.voi_function.as_deref() == Some("SIGMOID") && width > 0.0 => {
                Some(Box::new(move |value| 1.0 / (1.0 + (-4.0 * (value - center) / width).exp())))
            }
            (Some(_), Some(_)) => None,
            _ => {
                let lut = self.voi_lut.as_ref()?;
                Some(Box::new(move |value| f64::from(lut.at(value)) / lut.most()))
            }
        }
    }

    /// The sum of a real-world value and its inverse, where values are inverted.
    fn mirror(&self) -> Option<f64> {
        if self.layout.photometric != "MONOCHROME1" {
            return None;
        }
        match &self.modality_lut {
            Some(lut) if self.attributes.rescale_slope.is_none() => Some(lut.most()),
            _ => {
                let (slope, intercept) =
                    (self.attributes.rescale_slope.unwrap_or(1.0), self.attributes.rescale_intercept.unwrap_or(0.0));
                let (least, most) = self.stored_range();
                Some((least + most) * slope + 2.0 * intercept)
            }
        }
    }

    /// The least and the largest stored value that the bits can hold.
    fn stored_range(&self) -> (f64, f64) {
        match (self.layout.signed, 2f64.powi(self.layout.bits_stored as i32)) {
            (false, count) => (0.0, count - 1.0),
            (true, count) => (-count / 2.0, count / 2.0 - 1.0),
        }
    }

    /// The range of [`to_plane`](Self::to_plane)'s values that the file wants to be shown from black to white: its first window
    /// (PS3.3 C.11.2.1.2), or else all values that its bits can hold.
    ///
    /// # Errors
    /// [`Fault::Unsupported`] for a VOI LUT without a window and for a VOI LUT function that is not linear,
    /// [`Fault::Malformed`] for a window without a width.
    pub fn display_window(&self) -> Result<Window, Error> {
        self.window().map_err(|fault| Error::new(&self.file, fault))
    }

    fn window(&self) -> Result<Window, Fault> {
        let attributes = &self.attributes;
        let first = |values: &Option<Vec<f64>>| values.as_ref().and_then(|values| values.first().copied());
        let (slope, intercept) = (attributes.rescale_slope.unwrap_or(1.0), attributes.rescale_intercept.unwrap_or(0.0));
        let (least, most) = match &self.modality_lut {
            Some(lut) if attributes.rescale_slope.is_none() => (0.0, lut.most()),
            _ => self.stored_range(),
        };
        let function = attributes.voi_function.as_deref().unwrap_or("LINEAR");
        let (low, high) = match (first(&attributes.window_center), first(&attributes.window_width)) {
            (Some(_), Some(_)) if !matches!(function, "LINEAR" | "LINEAR_EXACT") => {
                return Err(Fault::Unsupported(format!("VOI LUT Function (0028,1056) {function}")));
            }
            (Some(center), Some(width)) if function == "LINEAR_EXACT" => (center - width / 2.0, center + width / 2.0),
            // The linear function reaches its ends at half a unit more and less (C.11.2.1.2.1).
            (Some(center), Some(width)) => (center - 0.5 - (width - 1.0) / 2.0, center - 0.5 + (width - 1.0) / 2.0),
            _ if attributes.voi_lut => {
                return Err(Fault::Unsupported("a VOI LUT Sequence (0028,3010) without a window".into()));
            }
            _ if self.is_real() => {
                return Err(Fault::Unsupported("floating point pixel data without a window (0028,1050)".into()));
            }
            _ => (least * slope + intercept, most * slope + intercept),
        };
        // Inverted images were mirrored in the range of their stored values.
        let mirrored = |value: f64| (least + most) * slope + 2.0 * intercept - value;
        let (low, high) = match self.layout.photometric.as_str() {
            "MONOCHROME1" => (mirrored(high), mirrored(low)),
            _ => (low, high),
        };
        let window = Window { low: low.min(high) as f32, high: low.max(high) as f32 };
        if window.low < window.high && window.low.is_finite() && window.high.is_finite() {
            return Ok(window);
        }
        Err(Fault::Malformed(format!("Window Width (0028,1051) leaves a window from {low} to {high}")))
    }
}

/// Full-range YCbCr of 8 bits to RGB (PS3.3 C.7.6.3.1.2), rounded half up.
fn to_rgb(values: &[i64]) -> Vec<i64> {
    let round = |value: f32| f64::from((value + 0.5).floor().clamp(0.0, 255.0)) as i64;
    values
        .chunks_exact(3)
        .flat_map(|pixel| {
            let (y, cb, cr) = (pixel[0] as f32, pixel[1] as f32 - 128.0, pixel[2] as f32 - 128.0);
            [
                round(y + 1.402 * cr),
                round(y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr),
                round(y + 1.772 * cb),
            ]
        })
        .collect()
}
