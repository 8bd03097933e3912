//! The inputs that fuzzing found to reach different code, through the functions that were fuzzed: see `fuzz/README.md`.

use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

#[allow(dead_code)]
#[path = "../fuzz/src/inputs.rs"]
mod inputs;

/// Panics of ours. The reader catches those of its decoders, so that one of ours in them would not be seen.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn replay(target: &str, input: fn(&[u8])) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|place| place.file().contains("/registry/")) {
                PANICS.fetch_add(1, Ordering::SeqCst);
                before(panic);
            }
        }));
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    // A folder that was emptied by mistake tests nothing.
    assert!(files.len() > 20, "{}: {} inputs", folder.display(), files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let before = PANICS.load(Ordering::SeqCst);
        input(&bytes);
        assert_eq!(PANICS.load(Ordering::SeqCst), before, "{}", file.display());
    }
}

// One test, as they share the count of panics.
#[test]
fn the_corpus_of_every_target_is_read_or_refused() {
    replay("dicom", inputs::dicom);
    replay("codecs", inputs::codecs);
    replay("raster", inputs::raster);
    replay("volume", inputs::volume);
}
