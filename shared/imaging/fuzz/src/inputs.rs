//! What is done with hostile bytes: the same by the fuzz targets and by the test that replays their corpus.
//!
//! Any outcome is right but a panic of ours, an image that is lost on its way through a writer, and memory or time without bound.

use std::path::Path;

use hiresmed_imaging::dicom::deidentify::{Policy, SiteSecret, deidentify};
use hiresmed_imaging::dicom::write::{Identity, Syntax, Synthetic};
use hiresmed_imaging::dicom::{DicomImage, ReadOptions, from_bytes};
use hiresmed_imaging::{Plane, Window};
use hiresmed_imaging::{nifti, raster};

/// Small, so that an input that finds a way around it stands out, and fast.
pub const LIMIT: ReadOptions = ReadOptions { limit_bytes: 1 << 20 };

/// Frames that are looked at in an object.
const FRAMES: usize = 4;

const NAME: &str = "hostile";

/// A whole file: read, shown, de-identified, written anew and read back.
pub fn dicom(bytes: &[u8]) {
    let Ok(image) = from_bytes(bytes, NAME, LIMIT) else { return };
    look_at(&image);
    let Some(secret) = SiteSecret::new(vec![1; SiteSecret::LEAST_BYTES]) else { return };
    let everything =
        Policy { retain_device: true, retain_characteristics: true, waive_burned_in: true, syntax: Syntax::JpegLs };
    for policy in [Policy::default(), everything] {
        let Ok(clean) = deidentify(bytes, NAME, &secret, &policy, LIMIT) else { continue };
        // What is written has to be an image, and the same one. Its head is larger than a head can be here.
        let options = ReadOptions { limit_bytes: 2 * LIMIT.limit_bytes };
        let again = match from_bytes(&clean.bytes, Path::new("written"), options) {
            Ok(again) => again,
            Err(error) => panic!("what was written is refused: {error}"),
        };
        for frame in 0..image.frames().min(FRAMES) {
            let (before, after) = (image.frame(frame), again.frame(frame));
            assert!(
                matches!((&before, &after), (Ok(before), Ok(after)) if before == after),
                "frame {frame} is not what it was"
            );
        }
    }
}

/// One code stream in a small object around it: see [`object`].
pub fn codecs(bytes: &[u8]) {
    let Some(file) = object(bytes) else { return };
    let Ok(image) = from_bytes(&file, NAME, LIMIT) else { return };
    look_at(&image);
}

/// A PNG or JPEG as an image and as a mask.
pub fn raster(bytes: &[u8]) {
    let head = raster::head_from_bytes(bytes, NAME, LIMIT);
    let mask = raster::mask_from_bytes(bytes, NAME, LIMIT);
    let Ok(grey) = raster::grey_from_bytes(bytes, NAME, LIMIT) else { return };
    let size = (grey.plane.width(), grey.plane.height());
    assert!(head.is_ok_and(|head| (head.width, head.height) == size), "head and image differ");
    let Ok(mask) = mask else { panic!("an image that is no mask") };
    let again = raster::mask_from_bytes(&raster::mask_png(&mask), "written", ReadOptions::default());
    assert!(again.is_ok_and(|again| again == mask), "a mask is not what it was");
    let _ = raster::preview_png(&grey.plane, 0.0, grey.max);
}

/// A NIfTI volume, behind a byte that says whether it is compressed.
pub fn volume(bytes: &[u8]) {
    let Some((&packed, bytes)) = bytes.split_first() else { return };
    let name = if packed & 1 == 1 { "hostile.nii.gz" } else { "hostile.nii" };
    let Ok(volume) = nifti::volume_from_bytes(bytes, name, LIMIT) else { return };
    let pixels: usize = volume.slices.iter().map(|slice| slice.width() * slice.height()).sum();
    assert!(8 * pixels as u64 <= LIMIT.limit_bytes, "{pixels} voxels");
}

/// Every way from a frame to a picture.
fn look_at(image: &DicomImage) {
    let _ = image.display_window();
    for frame in 0..image.frames().min(FRAMES) {
        let (stored, plane) = (image.frame(frame), image.to_plane(frame));
        let count = image.width() * image.height();
        assert!(stored.is_ok() || plane.is_err(), "a plane without its frame");
        let Ok(stored) = stored else { continue };
        assert_eq!(stored.values.len(), count * stored.samples);
        let Ok((shown, window)) = image.shown(frame) else { continue };
        write_anew(&shown, window);
    }
}

/// The picture as an object of our own.
fn write_anew(shown: &Plane, window: Window) {
    let data: Vec<f32> = shown.data().iter().map(|&value| window.normalise(value)).collect();
    let plane = Plane::new(shown.width(), shown.height(), data).with_spacing(shown.spacing);
    let written = Synthetic {
        plane: &plane,
        window,
        identity: Identity { request: "fuzz", image: 0, object: "composite" },
        modality: "CT",
        description: "",
        body_part: "CHEST",
        software_version: "0",
        syntax: Syntax::JpegLs,
    };
    let Ok(bytes) = written.to_bytes() else { return };
    let again = from_bytes(&bytes, "written", ReadOptions::default()).and_then(|image| image.frame(0));
    let stored = plane.data().iter().map(|&value| i64::from(window.to_stored(value)));
    assert!(again.is_ok_and(|frame| frame.values.into_iter().eq(stored)), "an object of ours is not what it was");
}

/// Transfer syntaxes by the first byte of a codec's input.
pub const SYNTAXES: [&str; 20] = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.53",
    "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.112",
];

/// Photometric interpretation, samples, bits allocated and stored, by the second byte.
pub const LAYOUTS: [(&str, u16, u16, u16); 12] = [
    ("MONOCHROME2", 1, 8, 8),
    ("MONOCHROME2", 1, 16, 12),
    ("MONOCHROME1", 1, 16, 16),
    ("MONOCHROME2", 1, 32, 32),
    ("MONOCHROME2", 1, 1, 1),
    ("PALETTE COLOR", 1, 8, 8),
    ("RGB", 3, 8, 8),
    ("RGB", 3, 16, 16),
    ("YBR_FULL", 3, 8, 8),
    ("YBR_FULL_422", 3, 8, 8),
    ("YBR_ICT", 3, 8, 8),
    ("YBR_RCT", 3, 8, 8),
];

/// Bytes before the code stream.
pub const HEAD: usize = 5;

/// The third byte's bits.
pub const SIGNED: u8 = 1;
/// Colour by plane.
pub const PLANAR: u8 = 2;
/// Two frames, the code stream cut in the middle.
pub const TWO_FRAMES: u8 = 4;
/// Rows and columns as the code stream says, where it says something small: a fuzzer would hardly ever hit both.
pub const OWN_SIZE: u8 = 8;
/// The whole object in one frame of several fragments.
pub const FRAGMENTS: u8 = 16;

/// An object around a code stream: syntax, layout, flags, columns and rows in a byte each, and the stream. A deflated stream is the data
/// set itself.
pub fn object(bytes: &[u8]) -> Option<Vec<u8>> {
    let (&[syntax, layout, flags, columns, rows], stream) = bytes.split_first_chunk::<HEAD>()?;
    let syntax = SYNTAXES[usize::from(syntax) % SYNTAXES.len()];
    let mut file = [&[0; 128], b"DICM".as_slice()].concat();
    let mut meta = Elements { bytes: Vec::new(), big: false, explicit: true };
    meta.text(0x0002, 0x0010, b"UI", syntax);
    file.append(&mut meta.bytes);
    if syntax.ends_with(".99") {
        file.extend(stream);
        return Some(file);
    }
    let (photometric, samples, allocated, stored) = LAYOUTS[usize::from(layout) % LAYOUTS.len()];
    let (columns, rows) = match own_size(stream).filter(|_| flags & OWN_SIZE != 0) {
        Some(size) => size,
        None => (u16::from(columns), u16::from(rows)),
    };
    let native = !syntax.starts_with("1.2.840.10008.1.2.4.") && syntax != "1.2.840.10008.1.2.5";
    let mut set =
        Elements { bytes: Vec::new(), big: syntax == "1.2.840.10008.1.2.2", explicit: syntax != "1.2.840.10008.1.2" };
    set.number(0x0028, 0x0002, samples);
    set.text(0x0028, 0x0004, b"CS", photometric);
    set.number(0x0028, 0x0006, u16::from(flags & PLANAR != 0));
    set.text(0x0028, 0x0008, b"IS", if flags & TWO_FRAMES != 0 { "2" } else { "1" });
    set.number(0x0028, 0x0010, rows);
    set.number(0x0028, 0x0011, columns);
    set.number(0x0028, 0x0100, allocated);
    set.number(0x0028, 0x0101, stored);
    set.number(0x0028, 0x0102, stored - 1);
    set.number(0x0028, 0x0103, u16::from(flags & SIGNED != 0));
    let vr = if native && allocated > 8 { b"OW" } else { b"OB" };
    if native {
        set.head(0x7FE0, 0x0010, vr, stream.len() as u32);
        set.bytes.extend(stream);
    } else {
        set.head(0x7FE0, 0x0010, vr, u32::MAX);
        let cut = if flags & (TWO_FRAMES | FRAGMENTS) != 0 { stream.len() / 2 } else { stream.len() };
        let (first, second) = stream.split_at(cut);
        set.item(0xE000, &[]);
        set.item(0xE000, first);
        if !second.is_empty() {
            set.item(0xE000, second);
        }
        set.item(0xE0DD, &[]);
    }
    file.append(&mut set.bytes);
    Some(file)
}

/// Columns and rows that a JPEG, JPEG-LS or JPEG 2000 frame header says.
fn own_size(stream: &[u8]) -> Option<(u16, u16)> {
    let side = |at: usize| stream.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let long = |at: usize| side(at).filter(|high| *high == 0).and_then(|_| side(at + 2));
    let found = |marker: &[u8; 2]| match marker {
        [0xFF, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xF7] => Some(false),
        [0xFF, 0x51] => Some(true),
        _ => None,
    };
    let (at, large) = stream.windows(2).enumerate().find_map(|(at, two)| Some((at, found(&[two[0], two[1]])?)))?;
    let (columns, rows) = match large {
        false => (side(at + 7)?, side(at + 5)?),
        true => (long(at + 6)?.checked_sub(long(at + 14)?)?, long(at + 10)?.checked_sub(long(at + 18)?)?),
    };
    (columns <= 512 && rows <= 512).then_some((columns, rows))
}

/// Elements of a data set.
struct Elements {
    bytes: Vec<u8>,
    big: bool,
    explicit: bool,
}

impl Elements {
    fn u16(&mut self, value: u16) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(if self.big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn head(&mut self, group: u16, element: u16, vr: &[u8; 2], length: u32) {
        self.u16(group);
        self.u16(element);
        match (self.explicit, vr) {
            (false, _) => self.u32(length),
            (true, b"OB" | b"OW") => {
                self.bytes.extend([vr[0], vr[1], 0, 0]);
                self.u32(length);
            }
            (true, _) => {
                self.bytes.extend(vr);
                self.u16(length as u16);
            }
        }
    }

    fn text(&mut self, group: u16, element: u16, vr: &[u8; 2], text: &str) {
        let padding = text.len() % 2;
        self.head(group, element, vr, (text.len() + padding) as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.resize(self.bytes.len() + padding, if vr == b"UI" { 0 } else { b' ' });
    }

    fn number(&mut self, group: u16, element: u16, value: u16) {
        self.head(group, element, b"US", 2);
        self.u16(value);
    }

    fn item(&mut self, element: u16, value: &[u8]) {
        self.u16(0xFFFE);
        self.u16(element);
        self.u32(value.len() as u32);
        self.bytes.extend(value);
    }
}
