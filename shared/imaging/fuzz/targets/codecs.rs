#![no_main]
//! libFuzzer over `inputs::codecs`.

#[path = "../src/hook.rs"]
mod hook;
#[allow(dead_code)]
#[path = "../src/inputs.rs"]
mod inputs;

libfuzzer_sys::fuzz_target!(init: hook::install(), |bytes: &[u8]| inputs::codecs(bytes));
