//! What a file of a few bytes may cost: never more than a small multiple of the caller's limit, whatever it says of itself.

// A failed test panics: that is its message.
#![allow(clippy::unwrap_used)]

use hiresmed_imaging::dicom::deidentify::{Policy, SiteSecret, deidentify};
use hiresmed_imaging::dicom::{ReadOptions, from_bytes};
use hiresmed_imaging::{Fault, raster};

const MIB: u64 = 1 << 20;
const LIMIT: ReadOptions = ReadOptions { limit_bytes: 4 * MIB };

/// Elements of an explicit little endian data set; a length that lies where one is given.
fn element(tag: (u16, u16), vr: &[u8; 2], length: Option<u32>, value: &[u8]) -> Vec<u8> {
    let length = length.unwrap_or(value.len() as u32);
    let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes(), *vr].concat();
    match vr {
        b"OB" | b"OW" | b"SQ" | b"UN" => bytes.extend([&[0, 0], length.to_le_bytes().as_slice()].concat()),
        _ => bytes.extend((length as u16).to_le_bytes()),
    }
    bytes.extend(value);
    bytes
}

fn number(element_number: u16, value: u16) -> Vec<u8> {
    element((0x28, element_number), b"US", None, &value.to_le_bytes())
}

fn item(value: &[u8]) -> Vec<u8> {
    [&[0xFE, 0xFF, 0, 0xE0], (value.len() as u32).to_le_bytes().as_slice(), value].concat()
}

struct Object<'a> {
    syntax: &'a str,
    columns: u16,
    rows: u16,
    bits: u16,
    frames: &'a str,
    pixels: Vec<u8>,
}

impl Object<'_> {
    fn file(&self) -> Vec<u8> {
        let text = |tag, vr, text: &str| {
            let padding = if vr == b"UI" { "\0" } else { " " };
            element(tag, vr, None, format!("{text}{}", &padding[..text.len() % 2]).as_bytes())
        };
        let mut file = [&[0; 128], b"DICM".as_slice()].concat();
        for part in [
            text((2, 0x10), b"UI", self.syntax),
            text((8, 0x16), b"UI", "1.2.840.10008.5.1.4.1.1.7"),
            text((8, 0x18), b"UI", "1.2.3"),
            text((8, 0x60), b"CS", "OT"),
            text((0x20, 0xD), b"UI", "1.2.4"),
            text((0x20, 0xE), b"UI", "1.2.5"),
            number(2, 1),
            text((0x28, 4), b"CS", "MONOCHROME2"),
            text((0x28, 8), b"IS", self.frames),
            number(0x10, self.rows),
            number(0x11, self.columns),
            number(0x100, if self.bits > 8 { 16 } else { 8 }),
            number(0x101, self.bits),
            number(0x102, self.bits - 1),
            number(0x103, 0),
            self.pixels.clone(),
        ] {
            file.extend(part);
        }
        file
    }
}

fn fragments(frames: &[&[u8]]) -> Vec<u8> {
    let mut pixels = element((0x7FE0, 0x10), b"OB", Some(u32::MAX), &item(&[]));
    frames.iter().for_each(|frame| pixels.extend(item(frame)));
    pixels.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    pixels
}

/// Most bytes that this process has held since `forget_peak`.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

fn forget_peak() -> u64 {
    // 5: the high water mark of resident memory (proc(5)).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak_bytes()
}

/// What `act` gives, once it has been seen to take at most `most` bytes.
fn within<T>(what: &str, most: u64, act: impl FnOnce() -> T) -> T {
    let before = forget_peak();
    let result = act();
    let taken = peak_bytes().saturating_sub(before);
    assert!(taken <= most, "{what}: {} MiB", taken / MIB);
    result
}

fn decode(bytes: &[u8]) -> Result<usize, Fault> {
    let image = from_bytes(bytes, "bomb", LIMIT).map_err(|error| error.fault)?;
    let mut count = 0;
    for frame in 0..image.frames() {
        count += image.frame(frame).map_err(|error| error.fault)?.values.len();
    }
    Ok(count)
}

const SYNTAXES: [&str; 8] = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.201",
];

/// A JPEG-LS stream of one value: a run a line, and each of its bits twice as long as the one before.
fn flat_jpeg_ls(columns: u16, rows: u16) -> Vec<u8> {
    let plane = hiresmed_imaging::Plane::filled(columns.into(), rows.into(), 0.0);
    let slice = hiresmed_imaging::dicom::write::PatientSlice {
        plane: &plane,
        patient_id: "T",
        derivation: "",
        number: 1,
        z_mm: 0.0,
        thickness_mm: 1.0,
        syntax: hiresmed_imaging::dicom::write::Syntax::JpegLs,
    };
    let bytes = slice.to_bytes().unwrap();
    let start = bytes.windows(4).position(|four| four == [0xFF, 0xD8, 0xFF, 0xF7]).unwrap();
    let end = bytes.windows(2).rposition(|two| two == [0xFF, 0xD9]).unwrap();
    bytes[start..end + 2].to_vec()
}

/// A JPEG 2000 stream of 8 bits that ends behind its first tile-part's header.
fn jpeg_2000(side: u32, tile: u32, layers: u16, levels: u8, block: u8, precinct: Option<u8>) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
    [side, side, 0, 0, tile, tile, 0, 0].iter().for_each(|value| bytes.extend(value.to_be_bytes()));
    bytes.extend([0, 1, 7, 1, 1]);
    let sizes = vec![precinct.unwrap_or_default(); if precinct.is_some() { usize::from(levels) + 1 } else { 0 }];
    bytes.extend([0xFF, 0x52, 0, 12 + sizes.len() as u8, u8::from(precinct.is_some()), 0]);
    bytes.extend(layers.to_be_bytes());
    bytes.extend([0, levels, block, block, 0, 1]);
    bytes.extend(&sizes);
    bytes.extend([0xFF, 0x5C, 0, 4 + 3 * levels, 0x40]);
    bytes.extend(vec![0x40; 1 + 3 * usize::from(levels)]);
    bytes.extend([0xFF, 0x90, 0, 10, 0, 0, 0, 0, 0, 0, 0, 1, 0xFF, 0x93]);
    bytes.extend([0; 64]);
    bytes.extend([0xFF, 0xD9]);
    bytes
}

/// Names the case that a process is for.
const CASE: &str = "HIRESMED_LIMITS_CASE";

// Each case in a process of its own: what another has freed is still the process's, and would hide what this one takes.
#[test]
fn bombs_are_refused_within_the_callers_limit() {
    let cases: [(&str, &dyn Fn()); 13] = [
        ("sizes", &sizes_that_lie),
        ("all frames", &frames_out_of_nothing),
        ("largest", &largest_frame),
        ("tiles", &|| structure_of_jpeg_2000(&jpeg_2000(200, 2, 1, 0, 4, None))),
        ("blocks", &|| structure_of_jpeg_2000(&jpeg_2000(700, 700, 1, 0, 0, None))),
        ("precincts", &|| structure_of_jpeg_2000(&jpeg_2000(700, 700, 1, 5, 4, Some(0x11)))),
        ("layers", &|| structure_of_jpeg_2000(&jpeg_2000(700, 700, 65_535, 5, 4, Some(0x44)))),
        ("two streams", &two_streams),
        ("lengths", &lengths_and_nesting),
        ("elements", &|| heads_without_content("elements")),
        ("items", &|| heads_without_content("items")),
        ("fragments", &|| heads_without_content("fragments")),
        ("pictures", &pictures),
    ];
    if let Ok(name) = std::env::var(CASE) {
        return cases.iter().filter(|(case, _)| *case == name).for_each(|(_, act)| act());
    }
    for (case, _) in cases {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bombs_are_refused_within_the_callers_limit", "--nocapture"])
            .env(CASE, case)
            .output()
            .unwrap();
        assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn sizes_that_lie() {
    for syntax in SYNTAXES {
        let pixels = match syntax {
            "1.2.840.10008.1.2.1" => element((0x7FE0, 0x10), b"OW", None, &[0; 8]),
            _ => fragments(&[&[0xFF, 0xD8, 0xFF, 0xD9]]),
        };
        let file = Object { syntax, columns: 65_535, rows: 65_535, bits: 12, frames: "1", pixels }.file();
        let refused = within(syntax, MIB, || decode(&file));
        assert!(matches!(refused, Err(Fault::TooLarge { limit: 4_194_304, .. })), "{syntax}: {refused:?}");
    }
    // More pixels than there are numbers for, where nothing else is bounded.
    let pixels = element((0x7FE0, 0x10), b"OW", None, &[0; 8]);
    let file =
        Object { syntax: SYNTAXES[0], columns: 65_535, rows: 65_535, bits: 12, frames: "4294967295", pixels }.file();
    let options = ReadOptions { limit_bytes: u64::MAX };
    let refused = within("frames", MIB, || from_bytes(&file, "bomb", options).map(drop)).unwrap_err();
    assert!(matches!(refused.fault, Fault::Truncated { declared: u64::MAX, .. }), "{refused}");
}

fn frames_out_of_nothing() {
    // 256 x 256 pixels in a few hundred bytes, two thousand times: a frame is within the limit, all together are not.
    let stream = flat_jpeg_ls(256, 256);
    let frames: Vec<&[u8]> = vec![&stream; 2000];
    let pixels = fragments(&frames);
    assert!(stream.len() < 1200, "{} bytes", stream.len());
    let file =
        Object { syntax: "1.2.840.10008.1.2.4.80", columns: 256, rows: 256, bits: 12, frames: "2000", pixels }.file();
    let secret = SiteSecret::new(vec![1; 16]).unwrap();
    let refused = within("all frames", 8 * LIMIT.limit_bytes, || {
        deidentify(&file, "bomb", &secret, &Policy::default(), LIMIT).map(drop)
    });
    assert!(
        matches!(refused.unwrap_err().fault, Fault::TooLarge { what: "all decoded frames", needed, .. } if needed == 2000 << 17)
    );
}

fn largest_frame() {
    let secret = SiteSecret::new(vec![1; 16]).unwrap();
    // The largest image that is allowed costs a small multiple of the limit, through all that is done with it.
    let stream = flat_jpeg_ls(724, 724);
    let pixels = fragments(&[&stream]);
    let largest = Object { syntax: "1.2.840.10008.1.2.4.80", columns: 724, rows: 724, bits: 12, frames: "1", pixels };
    let file = largest.file();
    assert_eq!(within("a frame", 4 * LIMIT.limit_bytes, || decode(&file)).unwrap(), 724 * 724);
    let taken = || deidentify(&file, "largest", &secret, &Policy::default(), LIMIT).map(drop);
    within("de-identification", 5 * LIMIT.limit_bytes, taken).unwrap();
}

fn structure_of_jpeg_2000(stream: &[u8]) {
    let side = u16::from_be_bytes([stream[10], stream[11]]);
    let pixels = fragments(&[stream]);
    let file =
        Object { syntax: "1.2.840.10008.1.2.4.90", columns: side, rows: side, bits: 8, frames: "1", pixels }.file();
    let Err(Fault::TooLarge { needed, limit, .. }) = within("a refusal", MIB, || decode(&file)) else {
        panic!("it is not refused")
    };
    assert!(needed > limit, "{needed}");
    // Who allows more gets no more than what was said.
    let options = ReadOptions { limit_bytes: 1 << 30 };
    let most = needed + 16 * MIB;
    let _ = within("a structure", most, || from_bytes(&file, "bomb", options).and_then(|image| image.frame(0)));
}

fn two_streams() {
    // A box in front of the stream, with another stream in it: the decoder would take the one behind.
    let small = jpeg_2000(64, 64, 1, 0, 4, None);
    let large = jpeg_2000(40_000, 40_000, 1, 0, 4, None);
    let boxed =
        |kind: &[u8; 4], content: &[u8]| [&(content.len() as u32 + 8).to_be_bytes(), &kind[..], content].concat();
    let head = [boxed(b"jP  ", &[0x0D, 0x0A, 0x87, 0x0A]), boxed(b"ftyp", b"jp2 \0\0\0\0jp2 ")].concat();
    let file = [head, boxed(b"uuid", &small), boxed(b"jp2c", &large)].concat();
    let pixels = fragments(&[&file]);
    let file = Object { syntax: "1.2.840.10008.1.2.4.90", columns: 64, rows: 64, bits: 8, frames: "1", pixels }.file();
    let refused = within("two streams", MIB, || decode(&file));
    assert!(matches!(refused, Err(Fault::TooLarge { needed, .. }) if needed > 100 * MIB), "{refused:?}");
}

fn lengths_and_nesting() {
    // Elements, items and fragments that are longer than the file, and sequences in sequences.
    let long = element((0x28, 0x11), b"UN", Some(4_000_000_000), &[1]);
    let deep: Vec<u8> = (0..100_000)
        .flat_map(|_| {
            [element((0x28, 0x9110), b"SQ", Some(u32::MAX), &[]), vec![0xFE, 0xFF, 0, 0xE0, 255, 255, 255, 255]]
                .concat()
        })
        .collect();
    let fragment = [&fragments(&[])[..20], &[0xFE, 0xFF, 0, 0xE0, 0xF0, 255, 255, 255, 7][..]].concat();
    for (what, pixels) in [("an element", long), ("sequences", deep), ("a fragment", fragment)] {
        let file = Object { syntax: SYNTAXES[1], columns: 8, rows: 8, bits: 8, frames: "1", pixels }.file();
        assert!(within(what, 2 * LIMIT.limit_bytes, || decode(&file)).is_err(), "{what}");
    }
}

/// Files that are nothing but heads: of elements, items and fragments.
fn heads_without_content(kind: &str) {
    let count = LIMIT.limit_bytes as usize / 8 - 100;
    // Each of another tag.
    let tag =
        |at: usize| [(0x29 + (at >> 16) as u16).to_le_bytes(), (at as u16).to_le_bytes(), [0; 2], [0; 2]].concat();
    let elements: Vec<u8> = (0..count).flat_map(tag).collect();
    let implicit =
        [&[0; 128], b"DICM".as_slice(), &element((2, 0x10), b"UI", None, b"1.2.840.10008.1.2\0"), &elements].concat();
    let items = element((0x28, 0x9110), b"SQ", None, &item(&[]).repeat(count));
    let one = fragments(&vec![&[][..]; count]);
    let object = |frames, pixels| Object { syntax: SYNTAXES[1], columns: 8, rows: 8, bits: 8, frames, pixels }.file();
    let number = count.to_string();
    for (what, file) in [("elements", implicit), ("items", object("1", items)), ("fragments", object(&number, one))] {
        if what != kind {
            continue;
        }
        let most = 10 * LIMIT.limit_bytes;
        let taken = within(what, most, || from_bytes(&file, "heads", LIMIT).map(drop));
        assert!(taken.is_err() == (what != "fragments"), "{what}: {taken:?}");
    }
}

fn pictures() {
    // A PNG that says it is 60,000 x 60,000, and has not a pixel of them.
    let mut png = raster::grey_png(8, 8, &[0; 64]);
    png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
    let mut checksum = flate2::Crc::new();
    checksum.update(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    let refused = within("a PNG", MIB, || raster::grey_from_bytes(&png, "bomb", LIMIT).map(drop)).unwrap_err();
    assert!(matches!(refused.fault, Fault::TooLarge { .. }), "{refused}");
}
