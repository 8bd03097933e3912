//! The coordinator as a process, called over HTTP, with a worker that imitates the work.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

mod candidates;
#[path = "../fleet/harness.rs"]
#[allow(dead_code, reason = "the other tests use what these do not")]
mod harness;
mod process;
mod requests;
mod tls;
mod tools;
mod unbounded;
