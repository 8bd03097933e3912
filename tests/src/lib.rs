//! Tests of the whole: coordinator and worker together, and the real `hiresmed` program in folders of its own.
//!
//! `tests/fleet` runs the two libraries in one process with a stand-in for the work, `tests/api` the coordinator as a process
//! that is called over HTTP, `tests/program` the program on one machine.
