//! The counters of C code.

fn main() {
    println!("cargo::rerun-if-changed=src/hits.c");
    // libFuzzer has a function of this name that does nothing.
    println!("cargo::rustc-link-arg=-Wl,--wrap=__sanitizer_cov_trace_pc");
    cc::Build::new().file("src/hits.c").compile("hits");
}
