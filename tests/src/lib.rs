//! Tests of the whole: coordinator and worker together, and the real `hiresmed` program in folders of its own.
//!
//! `tests/fleet.rs` runs the two libraries in one process with a stand-in for the work; the other files run the program.
