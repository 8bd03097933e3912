//! One small image in every supported transfer syntax: read exactly, refused when cut short, and never a panic, whatever
//! bytes are damaged.

// A failed test panics: that is its message.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use hiresmed_imaging::dicom::deidentify::{Policy, SiteSecret, deidentify};
use hiresmed_imaging::dicom::write::{PatientSlice, Syntax};
use hiresmed_imaging::dicom::{ReadOptions, from_bytes};
use hiresmed_imaging::{Fault, Plane};
use proptest::prelude::*;

const WIDTH: usize = 40;
const HEIGHT: usize = 32;

/// Stored values of the image that all files hold: 12 bits.
fn values() -> Vec<u16> {
    (0..WIDTH * HEIGHT)
        .map(|at| ((at % WIDTH) * 37 + (at / WIDTH) * 211 + (at % WIDTH) * (at / WIDTH) * 5) as u16 % 4096)
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Encoding {
    Implicit,
    Explicit,
    Big,
}

/// Elements of a data set, written by hand so that broken ones can be written too.
struct Writer {
    bytes: Vec<u8>,
    encoding: Encoding,
}

impl Writer {
    fn new(encoding: Encoding) -> Self {
        Self { bytes: Vec::new(), encoding }
    }

    fn u16(&mut self, value: u16) {
        let big = self.encoding == Encoding::Big;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn u32(&mut self, value: u32) {
        let big = self.encoding == Encoding::Big;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn header(&mut self, tag: (u16, u16), vr: &[u8; 2], length: u32) {
        self.u16(tag.0);
        self.u16(tag.1);
        if self.encoding == Encoding::Implicit {
            self.u32(length);
            return;
        }
        self.bytes.extend(vr);
        if matches!(vr, b"OB" | b"OD" | b"OF" | b"OW" | b"SQ" | b"UN") {
            self.u16(0);
            self.u32(length);
        } else {
            self.u16(length as u16);
        }
    }

    fn element(&mut self, tag: (u16, u16), vr: &[u8; 2], value: &[u8]) {
        let mut value = value.to_vec();
        if value.len() % 2 == 1 {
            value.push(if vr == b"UI" || vr == b"OB" { 0 } else { b' ' });
        }
        self.header(tag, vr, value.len() as u32);
        self.bytes.extend(value);
    }

    /// Little-endian numbers, written in the file's order.
    fn float(&mut self, tag: (u16, u16), vr: &[u8; 2], bytes: &[u8]) {
        let width = if matches!(vr, b"FL" | b"OF") { 4 } else { 8 };
        self.header(tag, vr, bytes.len() as u32);
        for number in bytes.chunks(width) {
            let big = self.encoding == Encoding::Big;
            (0..width).for_each(|at| self.bytes.push(number[if big { width - 1 - at } else { at }]));
        }
    }

    fn number(&mut self, tag: (u16, u16), value: u16) {
        self.header(tag, b"US", 2);
        self.u16(value);
    }
}

/// What differs between the files.
#[derive(Clone)]
struct Case {
    name: &'static str,
    syntax: &'static str,
    encoding: Encoding,
    pixels: Pixels,
    photometric: &'static str,
    samples: u16,
    bits: (u16, u16),
    signed: bool,
    frames: u16,
    /// Pixel Padding Value and its Range Limit.
    padding: Option<(u16, u16)>,
}

#[derive(Clone)]
enum Pixels {
    Singles(Vec<f32>),
    Doubles(Vec<f64>),
    Words(Vec<u16>),
    Bytes(Vec<u8>),
    Fragments(Vec<Vec<u8>>),
}

fn case(name: &'static str, syntax: &'static str, pixels: Pixels) -> Case {
    let encoding = match syntax {
        "1.2.840.10008.1.2" => Encoding::Implicit,
        "1.2.840.10008.1.2.2" => Encoding::Big,
        _ => Encoding::Explicit,
    };
    Case {
        name,
        syntax,
        encoding,
        pixels,
        photometric: "MONOCHROME2",
        samples: 1,
        bits: (16, 12),
        signed: false,
        frames: 1,
        padding: None,
    }
}

fn file(case: &Case) -> Vec<u8> {
    let mut meta = Writer::new(Encoding::Explicit);
    meta.element((2, 0x10), b"UI", case.syntax.as_bytes());
    let mut set = Writer::new(case.encoding);
    set.element((8, 0x60), b"CS", b"CT");
    set.number((0x28, 2), case.samples);
    set.element((0x28, 4), b"CS", case.photometric.as_bytes());
    set.element((0x28, 8), b"IS", case.frames.to_string().as_bytes());
    set.number((0x28, 0x10), HEIGHT as u16);
    set.number((0x28, 0x11), WIDTH as u16);
    set.element((0x28, 0x30), b"DS", b"0.5\\0.75");
    set.number((0x28, 0x100), case.bits.0);
    if !matches!(case.pixels, Pixels::Singles(_) | Pixels::Doubles(_)) {
        set.number((0x28, 0x101), case.bits.1);
        set.number((0x28, 0x102), case.bits.1 - 1);
        set.number((0x28, 0x103), u16::from(case.signed));
    }
    if let Some((value, limit)) = case.padding {
        set.number((0x28, 0x120), value);
        set.number((0x28, 0x121), limit);
    }
    match &case.pixels {
        Pixels::Singles(_) => set.float((0x28, 0x122), b"FL", &(-3f32).to_le_bytes()),
        Pixels::Doubles(_) => set.float((0x28, 0x123), b"FD", &(-3f64).to_le_bytes()),
        _ => {}
    }
    set.element((0x28, 0x1052), b"DS", b"-1024");
    set.element((0x28, 0x1053), b"DS", b"1");
    match &case.pixels {
        Pixels::Singles(values) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            set.float((0x7FE0, 8), b"OF", &bytes);
        }
        Pixels::Doubles(values) => {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            set.float((0x7FE0, 9), b"OD", &bytes);
        }
        Pixels::Words(words) => {
            set.header((0x7FE0, 0x10), b"OW", words.len() as u32 * 2);
            words.iter().for_each(|&word| set.u16(word));
        }
        Pixels::Bytes(bytes) => set.element((0x7FE0, 0x10), b"OB", bytes),
        Pixels::Fragments(fragments) => {
            set.header((0x7FE0, 0x10), b"OB", u32::MAX);
            set.header((0xFFFE, 0xE000), b"\0\0", 0);
            set.bytes.truncate(set.bytes.len() - 4);
            // Items carry no VR: tag and length only.
            let length = set.bytes.len();
            set.bytes.truncate(length - 4);
            item(&mut set.bytes, 0xE000, &[]);
            fragments.iter().for_each(|fragment| item(&mut set.bytes, 0xE000, fragment));
            item(&mut set.bytes, 0xE0DD, &[]);
        }
    }
    let data = if case.syntax.ends_with(".99") { deflate(&set.bytes) } else { set.bytes };
    [&[0u8; 128], b"DICM".as_slice(), &meta.bytes, &data].concat()
}

fn item(bytes: &mut Vec<u8>, element: u16, value: &[u8]) {
    let padded = value.len() + value.len() % 2;
    bytes.extend(0xFFFEu16.to_le_bytes());
    bytes.extend(element.to_le_bytes());
    bytes.extend((padded as u32).to_le_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len() + padded - value.len(), 0);
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// RLE of each byte plane, most significant first, without any repetition.
fn rle(samples: &[u32], bytes_each: usize) -> Vec<u8> {
    let mut segments = Vec::new();
    for byte in (0..bytes_each).rev() {
        let plane: Vec<u8> = samples.iter().map(|&value| (value >> (8 * byte)) as u8).collect();
        let packed: Vec<u8> = plane.chunks(100).flat_map(|run| [&[run.len() as u8 - 1], run].concat()).collect();
        segments.push(packed);
    }
    let mut header = vec![segments.len() as u32];
    let mut offset = 64;
    for segment in &segments {
        header.push(offset);
        offset += segment.len() as u32;
    }
    header.resize(16, 0);
    let mut bytes: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
    segments.iter().for_each(|segment| bytes.extend(segment));
    bytes
}

fn jpeg_ls() -> Vec<u8> {
    // The writer's own code stream, cut out of the file that it makes.
    let plane = Plane::new(WIDTH, HEIGHT, values().iter().map(|&value| f32::from(value) - 1024.0).collect());
    let slice = PatientSlice {
        plane: &plane,
        patient_id: "T",
        derivation: "",
        number: 1,
        z_mm: 0.0,
        thickness_mm: 1.0,
        syntax: Syntax::JpegLs,
    };
    let bytes = slice.to_bytes().unwrap();
    let start = bytes.windows(4).position(|window| window == [0xFF, 0xD8, 0xFF, 0xF7]).unwrap();
    let end = bytes.windows(2).rposition(|window| window == [0xFF, 0xD9]).unwrap();
    bytes[start..end + 2].to_vec()
}

/// Files that must come back with exactly [`values`].
fn exact_cases() -> Vec<Case> {
    let words = || Pixels::Words(values());
    let wide: Vec<u32> = values().iter().map(|&value| u32::from(value)).collect();
    let fragment = |bytes: Vec<u8>| Pixels::Fragments(vec![bytes]);
    let split = |bytes: Vec<u8>| Pixels::Fragments(bytes.chunks(64).map(<[u8]>::to_vec).collect());
    let mut long = case("32-bit RLE", "1.2.840.10008.1.2.5", fragment(rle(&wide, 4)));
    long.bits = (32, 32);
    // Bits beyond Bits Stored, as overlays leave them there.
    let overlay = values().iter().enumerate().map(|(at, value)| value | ((at as u16 % 16) << 12)).collect();
    vec![
        case("implicit", "1.2.840.10008.1.2", words()),
        case("explicit", "1.2.840.10008.1.2.1", words()),
        case("explicit with overlay bits", "1.2.840.10008.1.2.1", Pixels::Words(overlay)),
        case("deflated", "1.2.840.10008.1.2.1.99", words()),
        case("big endian", "1.2.840.10008.1.2.2", words()),
        case("RLE", "1.2.840.10008.1.2.5", fragment(rle(&wide, 2))),
        long,
        case(
            "JPEG lossless",
            "1.2.840.10008.1.2.4.57",
            fragment(include_bytes!("fixtures/gradient-lossless.jpg").to_vec()),
        ),
        case(
            "JPEG lossless SV1",
            "1.2.840.10008.1.2.4.70",
            split(include_bytes!("fixtures/gradient-lossless.jpg").to_vec()),
        ),
        case("JPEG-LS", "1.2.840.10008.1.2.4.80", split(jpeg_ls())),
        case("JPEG 2000", "1.2.840.10008.1.2.4.90", split(include_bytes!("fixtures/gradient.j2k").to_vec())),
        case("JPEG XL", "1.2.840.10008.1.2.4.110", split(include_bytes!("fixtures/gradient.jxl").to_vec())),
    ]
}

fn read(bytes: &[u8]) -> Result<Vec<i64>, hiresmed_imaging::Error> {
    let options = ReadOptions { limit_bytes: 1 << 24 };
    let image = from_bytes(bytes, "case.dcm", options)?;
    let mut all = Vec::new();
    for frame in 0..image.frames() {
        all.extend(image.frame(frame)?.values);
    }
    Ok(all)
}

#[test]
fn every_syntax_comes_back_exactly() {
    for case in exact_cases() {
        let read = read(&file(&case)).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        assert!(read.iter().copied().eq(values().iter().map(|&value| i64::from(value))), "{}", case.name);
    }
}

/// A smooth image of 8 bits, and its baseline JPEG in an object.
fn lossy_case() -> (Vec<u8>, Case) {
    let grey: Vec<u8> = (0..WIDTH * HEIGHT).map(|at| (at % WIDTH * 3 + at / WIDTH * 4) as u8).collect();
    let mut jpeg = Vec::new();
    let size = (WIDTH as u32, HEIGHT as u32);
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95)
        .encode(&grey, size.0, size.1, image::ExtendedColorType::L8)
        .unwrap();
    let mut case = case("JPEG baseline", "1.2.840.10008.1.2.4.50", Pixels::Fragments(vec![jpeg]));
    case.bits = (8, 8);
    (grey, case)
}

#[test]
fn lossy_jpeg_comes_back_nearly() {
    let (grey, case) = lossy_case();
    let read = read(&file(&case)).unwrap();
    assert!(read.iter().zip(&grey).all(|(&read, &grey)| (read - i64::from(grey)).abs() <= 4));
}

#[test]
fn lossy_jpeg_xl_comes_back_nearly_and_colour_as_rgb() {
    let (grey, base) = lossy_case();
    let object =
        |syntax, stream: &[u8]| Case { syntax, pixels: Pixels::Fragments(vec![stream.to_vec()]), ..base.clone() };
    // A JPEG that was coded again, in the container that it needs, and one of its own kind of loss.
    for (syntax, stream) in [
        ("1.2.840.10008.1.2.4.111", &include_bytes!("fixtures/smooth-from-jpeg.jxl")[..]),
        ("1.2.840.10008.1.2.4.112", &include_bytes!("fixtures/smooth-lossy.jxl")[..]),
    ] {
        let read = read(&file(&object(syntax, stream))).unwrap();
        let worst = read.iter().zip(&grey).map(|(&read, &grey)| (read - i64::from(grey)).abs()).max();
        assert!(worst <= Some(4), "{syntax}: {worst:?}");
    }
    let rgb = include_bytes!("fixtures/rgb.jxl");
    let colour = Case { photometric: "RGB", samples: 3, ..object("1.2.840.10008.1.2.4.110", rgb) };
    let expected = grey.iter().flat_map(|&grey| [grey, 255 - grey, grey / 2]).map(i64::from);
    assert!(read(&file(&colour)).unwrap().into_iter().eq(expected));
    // What is not as large as the object says, or is cut, is refused.
    assert!(read(&file(&object("1.2.840.10008.1.2.4.110", rgb))).is_err());
    let cut = &include_bytes!("fixtures/smooth-lossy.jxl")[..120];
    assert!(read(&file(&object("1.2.840.10008.1.2.4.112", cut))).is_err());
}

#[test]
fn signs_mirrors_and_rescale_are_applied_to_planes() {
    let explicit = "1.2.840.10008.1.2.1";
    let plane = |case: &Case| from_bytes(&file(case), "case.dcm", ReadOptions::default()).unwrap().to_plane(0).unwrap();
    let unsigned = plane(&case("unsigned", explicit, Pixels::Words(values())));
    assert_eq!(unsigned.at(3, 2), f32::from(values()[2 * WIDTH + 3]) - 1024.0);
    let spacing = unsigned.spacing.unwrap();
    assert_eq!((spacing.row_mm, spacing.column_mm), (0.5, 0.75));
    let mut signed = case("signed", explicit, Pixels::Words(values()));
    signed.signed = true;
    let expected = |value: u16| f32::from(value as i16 - if value >= 2048 { 4096 } else { 0 }) - 1024.0;
    assert!(plane(&signed).data().iter().copied().eq(values().into_iter().map(expected)));
    let mut mirrored = case("mirrored", explicit, Pixels::Words(values()));
    mirrored.photometric = "MONOCHROME1";
    assert!(plane(&mirrored).data().iter().copied().eq(values().iter().map(|&value| f32::from(4095 - value) - 1024.0)));
}

#[test]
fn pixels_that_hold_nothing_get_the_least_value_of_the_others() {
    let explicit = "1.2.840.10008.1.2.1";
    let plane = |case: &Case| from_bytes(&file(case), "case.dcm", ReadOptions::default()).unwrap().to_plane(0).unwrap();
    // Stored 0 to 4095; what is white in the file is nothing, given from either end of its range.
    for padding in [(4000, 4095), (4095, 4000)] {
        let case = Case { padding: Some(padding), ..case("padded", explicit, Pixels::Words(values())) };
        let expected = |value: u16| if value >= 4000 { -1024.0 } else { f32::from(value) - 1024.0 };
        assert!(values().iter().any(|&value| value >= 4000) && values().contains(&0));
        assert!(plane(&case).data().iter().copied().eq(values().into_iter().map(expected)), "{padding:?}");
        // Black is the most of the stored values here, and padding is meant in those.
        let inverted = plane(&Case { photometric: "MONOCHROME1", ..case.clone() });
        let least = values().iter().filter(|&&value| value < 4000).map(|&value| 4095 - value).min().unwrap();
        let of = |value: u16| f32::from(if value >= 4000 { least } else { 4095 - value }) - 1024.0;
        assert!(inverted.data().iter().copied().eq(values().into_iter().map(of)));
    }
    // A negative value, and an image that holds nothing at all.
    let words = vec![0u16.wrapping_sub(2000); WIDTH * HEIGHT];
    let mut empty = Case { padding: Some((words[0], words[0])), ..case("empty", explicit, Pixels::Words(words)) };
    (empty.signed, empty.bits) = (true, (16, 16));
    assert!(plane(&empty).data().iter().all(|&value| value == -3024.0));
}

#[test]
fn floating_point_pixels_come_back_exactly() {
    let values: Vec<f64> = (0..WIDTH * HEIGHT).map(|at| at as f64 / 8.0 - 2.0).collect();
    let singles: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"] {
        for (pixels, bits) in [(Pixels::Singles(singles.clone()), 32), (Pixels::Doubles(values.clone()), 64)] {
            let case = Case { bits: (bits, 0), ..case("float", syntax, pixels) };
            let image = from_bytes(&file(&case), "case.dcm", ReadOptions::default()).unwrap();
            assert_eq!(image.real_frame(0).unwrap(), values, "{syntax} {bits}");
            assert!(image.real_frame(1).is_err() && image.frame(0).is_err());
            // Rescaled, as whole numbers are.
            assert!(image.to_plane(0).unwrap().data().iter().zip(&singles).all(|(a, b)| *a == b - 1024.0));
            assert!(image.display_window().unwrap_err().to_string().contains("without a window"));
        }
    }
    // Padding, not a number, and a file that ends too early.
    let mut holes = singles.clone();
    (holes[0], holes[1]) = (-3.0, f32::NAN);
    let case = Case { bits: (32, 0), ..case("holes", "1.2.840.10008.1.2.1", Pixels::Singles(holes)) };
    let bytes = file(&case);
    let plane = from_bytes(&bytes, "case.dcm", ReadOptions::default()).unwrap().to_plane(0).unwrap();
    assert_eq!(plane.data()[0], plane.data()[2]);
    assert!(plane.data()[1].is_nan());
    for cut in [1, 4, WIDTH * HEIGHT * 4] {
        let error = from_bytes(&bytes[..bytes.len() - cut], "case.dcm", ReadOptions::default()).unwrap_err();
        assert!(error.to_string().contains("case.dcm"), "{error}");
    }
    let wrong = Case { bits: (64, 0), ..case };
    assert!(from_bytes(&file(&wrong), "case.dcm", ReadOptions::default()).unwrap_err().to_string().contains("64 bits"));
}

#[test]
fn frames_are_told_apart() {
    let second: Vec<u16> = values().iter().map(|value| 4095 - value).collect();
    let mut native = case("two frames", "1.2.840.10008.1.2.1", Pixels::Words([values(), second.clone()].concat()));
    native.frames = 2;
    let wide = |values: &[u16]| rle(&values.iter().map(|&value| u32::from(value)).collect::<Vec<_>>(), 2);
    let pixels = Pixels::Fragments(vec![wide(&values()), wide(&second)]);
    let mut packed = case("two RLE frames", "1.2.840.10008.1.2.5", pixels);
    packed.frames = 2;
    for case in [native, packed] {
        let image = from_bytes(&file(&case), "case.dcm", ReadOptions::default()).unwrap();
        assert_eq!(image.frames(), 2);
        assert!(image.frame(1).unwrap().values.iter().copied().eq(second.iter().map(|&value| i64::from(value))));
        assert!(image.frame(2).is_err());
    }
}

#[test]
fn colour_is_decoded_and_refused_where_grey_is_needed() {
    let bytes: Vec<u8> = (0..WIDTH * HEIGHT * 3).map(|at| at as u8).collect();
    let mut rgb = case("colour", "1.2.840.10008.1.2.1", Pixels::Bytes(bytes.clone()));
    (rgb.photometric, rgb.samples, rgb.bits) = ("RGB", 3, (8, 8));
    let image = from_bytes(&file(&rgb), "scan.dcm", ReadOptions::default()).unwrap();
    assert!(image.frame(0).unwrap().values.iter().copied().eq(bytes.iter().map(|&byte| i64::from(byte))));
    let error = image.to_plane(0).unwrap_err();
    assert!(matches!(error.fault, Fault::Colour(_)));
    assert!(error.to_string().contains("scan.dcm") && error.to_string().contains("RGB"));
    // Y 255 with neutral chroma is white, in both uncompressed forms.
    let mut ybr = rgb.clone();
    ybr.photometric = "YBR_FULL_422";
    ybr.pixels = Pixels::Bytes([255, 255, 128, 128].repeat(WIDTH * HEIGHT / 2));
    assert!(read(&file(&ybr)).unwrap().iter().all(|&value| value == 255));
    ybr.photometric = "YBR_FULL";
    ybr.pixels = Pixels::Bytes([76, 85, 255].repeat(WIDTH * HEIGHT));
    assert_eq!(read(&file(&ybr)).unwrap()[..3], [254, 0, 0]);
}

#[test]
fn every_truncation_of_pixel_data_is_refused() {
    for case in exact_cases() {
        let bytes = file(&case);
        // Behind the last pixel there may be a byte or two that nothing needs: a deflated stream's padding.
        for end in (0..bytes.len() - 8).rev() {
            assert!(read(&bytes[..end]).is_err(), "{} cut at {end} of {}", case.name, bytes.len());
        }
    }
}

#[test]
fn refusals_name_file_cause_and_next_step() {
    let explicit = "1.2.840.10008.1.2.1";
    let message =
        |bytes: &[u8]| from_bytes(bytes, Path::new("in/scan.dcm"), ReadOptions::default()).unwrap_err().to_string();
    let whole = file(&case("whole", explicit, Pixels::Words(values())));
    let truncated = message(&whole[..whole.len() - 40]);
    assert!(truncated.contains("in/scan.dcm") && truncated.contains("truncated") && truncated.contains("again"));
    assert!(message(b"hello").contains("not a DICOM file"));
    // Rows that lie: the pixels for them are not there.
    let lie = file(&case("short", explicit, Pixels::Words(values()[..100].to_vec())));
    assert!(message(&lie).contains("2560 bytes, 200"));
    let unknown = file(&case("unknown", "1.2.840.10008.1.2.4.107", Pixels::Fragments(vec![vec![0; 8]])));
    assert!(message(&unknown).contains("1.2.840.10008.1.2.4.107"));
    let mut huge = case("huge", "1.2.840.10008.1.2.5", Pixels::Fragments(vec![vec![0; 64]]));
    huge.frames = u16::MAX;
    assert!(message(&file(&huge)).contains("65535 frames"));
    let options = ReadOptions { limit_bytes: 100 };
    let small = from_bytes(&whole, "scan.dcm", options).unwrap_err();
    assert!(matches!(small.fault, Fault::TooLarge { .. }));
}

/// Numbers that look like chance and are the same in every run (Knuth's MMIX generator).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    /// Damages a file as disks, networks and hostile hands do: bytes, lengths that lie, pieces lost, repeated or moved.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = 1 + self.below(64);
            let end = (at + length).min(bytes.len());
            match self.below(8) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = [0x00, 0x7F, 0x80, 0xFF][self.below(4)],
                3 => {
                    let lie = [[0xFF; 4], [0xFF, 0xFF, 0xFF, 0x7F], [0; 4], [0xFE, 0xFF, 0x00, 0xE0]][self.below(4)];
                    let width = [2, 4][self.below(2)];
                    bytes.iter_mut().skip(at).zip(&lie[..width]).for_each(|(byte, lie)| *byte = *lie);
                }
                4 => drop(bytes.drain(at..end)),
                5 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    drop(bytes.splice(to..to, piece));
                }
                6 => bytes.truncate(at.max(1)),
                _ => bytes[at..end].reverse(),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
    }
}

/// Bytes that this process has held at most.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[test]
fn ten_thousand_damaged_files_are_read_or_refused_within_bounds() {
    let mut cases = exact_cases();
    cases.push(lossy_case().1);
    let explicit = "1.2.840.10008.1.2.1";
    let numbers = || (0..WIDTH * HEIGHT).map(|at| at as f64 / 8.0);
    let singles = Pixels::Singles(numbers().map(|value| value as f32).collect());
    cases.push(Case { bits: (32, 0), ..case("singles", explicit, singles) });
    cases.push(Case { bits: (64, 0), ..case("doubles", explicit, Pixels::Doubles(numbers().collect())) });
    cases.push(Case { padding: Some((4000, 4095)), ..case("padded", explicit, Pixels::Words(values())) });
    let mut files: Vec<Vec<u8>> = cases.iter().map(file).collect();
    // All twelve bits, and a real object with everything that writers put into it.
    let plane = Plane::new(40, 32, (0..1280).map(|at| (at * 3) as f32 - 1000.0).collect());
    let slice = |syntax| PatientSlice {
        plane: &plane,
        patient_id: "TEST",
        derivation: "A test",
        number: 1,
        z_mm: 0.0,
        thickness_mm: 1.0,
        syntax,
    };
    files.extend([Syntax::Explicit, Syntax::Deflated, Syntax::JpegLs].map(|syntax| slice(syntax).to_bytes().unwrap()));
    let options = ReadOptions { limit_bytes: 64 << 20 };
    let secret = SiteSecret::new(vec![1; 16]).unwrap();
    let (mut chance, mut read, mut refused) = (Chance(7), 0, 0);
    for number in 0..10_000 {
        let mut bytes = files[number % files.len()].clone();
        chance.damage(&mut bytes);
        match from_bytes(&bytes, "damaged.dcm", options) {
            Ok(image) => {
                read += 1;
                let _ = image.display_window();
                for frame in 0..image.frames().min(4) {
                    let _ = (image.frame(frame), image.real_frame(frame), image.to_plane(frame));
                }
                let _ = deidentify(&bytes, "damaged.dcm", &secret, &Policy::default(), options);
            }
            Err(_) => refused += 1,
        }
    }
    // A test in which nothing is read, or nothing refused, tests nothing.
    assert!(read > 1000 && refused > 1000, "{read} read, {refused} refused");
    assert!(peak_bytes() < 512 << 20, "{} MB", peak_bytes() >> 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        which in 0usize..11, cut in 0.0..1.0f64, flips in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..12),
        cuts in any::<bool>(),
    ) {
        let cases = exact_cases();
        let mut bytes = file(&cases[which % cases.len()]);
        for (place, value) in flips {
            // Past the preamble, where every byte counts.
            let at = 132 + ((bytes.len() - 133) as f64 * place) as usize;
            bytes[at] ^= value;
        }
        if cuts {
            bytes.truncate((bytes.len() as f64 * cut) as usize);
        }
        let _ = read(&bytes);
    }
}
