//! The real `hiresmed` program: requests, deaths, several processes, bad input.

#![allow(clippy::unwrap_used, reason = "a test fails where an expectation does")]

mod candidates;
mod deliver;
mod demo;
mod faults;
mod fixture;
mod geometry;
mod harness;
mod ingest;
mod kill;
mod kub;
mod labels;
mod models;
mod output;
mod requests;
mod sample;
mod score;
mod study;
mod train;
