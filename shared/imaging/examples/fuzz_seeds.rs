//! Writes the inputs that fuzzing starts from: `cargo run -p hiresmed-imaging --example fuzz_seeds -- OUT`. They are made by the project's own
//! writers, and by `fuzz/streams.py` where it has none.

use std::path::{Path, PathBuf};

use hiresmed_imaging::dicom::write::{Identity, PatientSlice, Syntax, Synthetic};
use hiresmed_imaging::{Mask, Plane, Window, raster};

#[allow(dead_code)]
#[path = "../fuzz/src/inputs.rs"]
mod inputs;

use inputs::{FRAGMENTS, LAYOUTS, OWN_SIZE, PLANAR, SIGNED, SYNTAXES, TWO_FRAMES};

const WIDTH: usize = 12;
const HEIGHT: usize = 9;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("usage: fuzz_seeds OUT")?);
    let put = |target: &str, name: &str, bytes: &[u8]| -> std::io::Result<()> {
        std::fs::create_dir_all(out.join(target))?;
        std::fs::write(out.join(target).join(name), bytes)
    };
    for (name, bytes) in codecs()? {
        // The object around each code stream is a whole file as well.
        put("dicom", &name, &inputs::object(&bytes).ok_or("a head is missing")?)?;
        put("codecs", &name, &bytes)?;
    }
    for (name, bytes) in objects()? {
        put("dicom", &name, &bytes)?;
    }
    for (name, bytes) in rasters() {
        put("raster", &name, &bytes)?;
    }
    for (name, bytes) in volumes()? {
        put("volume", name, &bytes)?;
    }
    Ok(())
}

fn plane() -> Plane {
    let value = |at: usize| ((at % WIDTH) * 90 + (at / WIDTH) * 61) as f32 - 1000.0;
    Plane::new(WIDTH, HEIGHT, (0..WIDTH * HEIGHT).map(value).collect())
}

fn streams() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["fuzz/streams", "tests/fixtures"] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, std::fs::read(file)?));
        }
    }
    Ok(found)
}

/// A code stream behind its head.
fn with_head(syntax: &str, layout: usize, flags: u8, stream: &[u8]) -> Vec<u8> {
    let syntax = SYNTAXES.iter().position(|uid| uid.ends_with(syntax)).unwrap_or_default();
    [&[syntax as u8, layout as u8, flags, WIDTH as u8, HEIGHT as u8], stream].concat()
}

fn codecs() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut all = Vec::new();
    for (layout, &(photometric, samples, allocated, _)) in LAYOUTS.iter().enumerate() {
        let samples = if photometric == "YBR_FULL_422" { 2 } else { usize::from(samples) };
        let width = usize::from(allocated).div_ceil(8);
        let bytes: Vec<u8> = (0..WIDTH * HEIGHT * samples * width).map(|at| (at * 7 % 251) as u8).collect();
        for (syntax, flags) in [(".1.2", 0), (".1.2.1", SIGNED), (".1.2.2", PLANAR)] {
            let bytes = if allocated == 1 { &bytes[..14] } else { &bytes[..] };
            all.push((format!("native{syntax}-{layout}"), with_head(syntax, layout, flags, bytes)));
        }
        if allocated > 1 {
            let stream = rle(&bytes, usize::from(LAYOUTS[layout].1) * width);
            all.push((format!("rle-{layout}"), with_head(".2.5", layout, FRAGMENTS, &stream)));
            let two = [&stream[..], &stream[..]].concat();
            all.push((format!("rle-two-{layout}"), with_head(".2.5", layout, TWO_FRAMES, &two)));
        }
    }
    for (name, stream) in streams()? {
        let deep = name.contains("12") || name.contains("16") || name.starts_with("gradient");
        let layouts: &[usize] = match (name.starts_with("rgb"), deep) {
            (true, true) => &[7],
            (true, false) => &[6, 8, 11],
            (false, true) => &[1, 3],
            (false, false) => &[0, 2, 5],
        };
        let syntax = match Path::new(&name).extension().and_then(|end| end.to_str()) {
            Some("jls") => ".4.80",
            Some("jpg") if name.contains("lossless") => ".4.57",
            Some("jpg") if deep => ".4.51",
            Some("jpg") => ".4.50",
            Some("jhc") => ".4.201",
            Some("jxl") => ".4.110",
            _ => ".4.90",
        };
        for &layout in layouts {
            all.push((format!("{layout}-{name}"), with_head(syntax, layout, OWN_SIZE, &stream)));
        }
    }
    // A deflated data set is that of an uncompressed object.
    let native = inputs::object(&with_head(".1.2.1", 0, 0, &[7; WIDTH * HEIGHT])).ok_or("a head is missing")?;
    let start = native.windows(4).position(|four| four == [0x28, 0, 2, 0]).ok_or("no data set")?;
    let mut deflated = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut deflated, &native[start..])?;
    all.push(("deflated".into(), with_head(".1.99", 0, 0, &deflated.finish()?)));
    Ok(all)
}

/// RLE of byte planes without repetition; `planes` of them, whatever they mean.
fn rle(bytes: &[u8], planes: usize) -> Vec<u8> {
    let packed: Vec<u8> =
        bytes[..WIDTH * HEIGHT].chunks(100).flat_map(|run| [&[run.len() as u8 - 1], run].concat()).collect();
    let mut header = vec![planes as u32];
    header.extend((0..planes).map(|plane| (64 + plane * packed.len()) as u32));
    header.resize(16, 0);
    let header: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
    [header, packed.repeat(planes)].concat()
}

fn objects() -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let plane = plane();
    let mut all = Vec::new();
    for syntax in [Syntax::Explicit, Syntax::Deflated, Syntax::JpegLs] {
        let slice = PatientSlice {
            plane: &plane,
            patient_id: "TEST",
            derivation: "A test",
            number: 1,
            z_mm: 0.0,
            thickness_mm: 1.0,
            syntax,
        };
        all.push((format!("slice-{syntax:?}"), slice.to_bytes()?));
    }
    let data = plane.data().iter().map(|&value| Window::LUNG_CT.normalise(value)).collect();
    let plane = Plane::new(WIDTH, HEIGHT, data);
    for modality in ["CT", "DX", "OT"] {
        let synthetic = Synthetic {
            plane: &plane,
            window: Window::LUNG_CT,
            identity: Identity { request: "seed", image: 0, object: "composite" },
            modality,
            description: "A test",
            body_part: "CHEST",
            software_version: "0",
            syntax: Syntax::Explicit,
        };
        all.push((format!("synthetic-{modality}"), synthetic.to_bytes()?));
    }
    for (name, tables) in [("modality", 0x3000u16), ("voi", 0x3010)] {
        all.push((format!("table-{name}"), with_tables(tables)?));
    }
    Ok(all)
}

/// An image whose values go through a table, and whose pixel measures lie in nested sequences.
fn with_tables(sequence: u16) -> Result<Vec<u8>, Failure> {
    let element = |group: u16, element: u16, vr: &[u8; 2], value: &[u8]| {
        let head = [group.to_le_bytes(), element.to_le_bytes(), *vr].concat();
        let length = match vr {
            b"SQ" | b"OW" => [&[0, 0], (value.len() as u32).to_le_bytes().as_slice()].concat(),
            _ => (value.len() as u16).to_le_bytes().to_vec(),
        };
        [head, length, value.to_vec()].concat()
    };
    let item = |value: &[u8]| [&[0xFE, 0xFF, 0, 0xE0], (value.len() as u32).to_le_bytes().as_slice(), value].concat();
    let words = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let table = [
        element(0x0028, 0x3002, b"US", &words(&[5, 10, 8])),
        element(0x0028, 0x3006, b"OW", &words(&[9, 30, 60, 90, 200])),
    ];
    let groups = element(0x0028, 0x9110, b"SQ", &item(&element(0x0028, 0x0030, b"DS", b"0.5\\0.75")));
    let set = [
        element(0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0"),
        element(0x0008, 0x0018, b"UI", b"1.2.3.4\0"),
        element(0x0008, 0x0060, b"CS", b"CR"),
        element(0x0010, 0x0020, b"LO", b"TEST"),
        element(0x0020, 0x000D, b"UI", b"1.2.3.5\0"),
        element(0x0020, 0x000E, b"UI", b"1.2.3.6\0"),
    ]
    .concat();
    // Behind the image's own elements, which are uncompressed, in front of its pixels.
    let native = inputs::object(&with_head(".1.2.1", 0, 0, &[17; WIDTH * HEIGHT])).ok_or("a head is missing")?;
    let place = |tag: [u8; 4]| native.windows(4).position(|four| four == tag).ok_or("an element is missing");
    let (start, pixels) = (place([0x28, 0, 2, 0])?, place([0xE0, 0x7F, 0x10, 0])?);
    let tables =
        [element(0x0028, sequence, b"SQ", &item(&table.concat())), element(0x5200, 0x9229, b"SQ", &item(&groups))]
            .concat();
    Ok([&native[..start], &set, &native[start..pixels], &tables, &native[pixels..]].concat())
}

fn rasters() -> Vec<(String, Vec<u8>)> {
    let plane = plane();
    let grey = raster::to_8_bit(&plane, -1000.0, 400.0);
    let rgb: Vec<u8> = grey.iter().flat_map(|&value| [value, value, value.saturating_sub(1)]).collect();
    let mut all = vec![
        ("mask.png".into(), raster::mask_png(&Mask::from_fn(WIDTH, HEIGHT, |x, y| (x + y) % 3 == 0))),
        ("grey.png".into(), raster::grey_png(WIDTH, HEIGHT, &grey)),
        ("rgb.png".into(), raster::rgb_png(WIDTH, HEIGHT, &rgb)),
        ("deep.png".into(), raster::deep_png(&Plane::filled(WIDTH, HEIGHT, 0.25))),
    ];
    let streams = streams().unwrap_or_default();
    all.extend(streams.into_iter().filter(|(name, _)| name.ends_with(".jpg")));
    all
}

/// A NIfTI-1 volume of 3 x 2 x 2 values of 16 bits, with and without an extension, and compressed.
fn volumes() -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
    let mut bytes = vec![0; 352];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &348i32.to_le_bytes());
    put(40, &[3, 0, 3, 0, 2, 0, 2, 0, 1, 0, 1, 0, 1, 0, 1, 0]);
    put(70, &[4, 0, 16, 0]);
    for (at, value) in [(76, 1f32), (80, 0.5), (84, 0.75), (88, 2.5), (108, 352.0), (112, 1.0), (280, 0.5), (300, 0.75)]
    {
        put(at, &value.to_le_bytes());
    }
    put(254, &[1, 0]);
    put(344, b"n+1\0");
    let values: Vec<u8> = (0..24).collect();
    let plain = [&[0], &bytes[..], &values].concat();
    let mut extended = plain.clone();
    extended[1 + 108..][..4].copy_from_slice(&368f32.to_le_bytes());
    extended[1 + 348] = 1;
    let extension = [16, 0, 0, 0, 4, 0, 0, 0, b'e', b'x', b't', b'e', b'n', b'd', b'e', b'd'];
    extended.splice(353..353, extension);
    let mut packed = flate2::write::GzEncoder::new(vec![1], flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &plain[1..])?;
    Ok(vec![("plain", plain), ("extended", extended), ("packed", packed.finish()?)])
}
