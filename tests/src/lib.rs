//! Tests of the whole: coordinator and worker together, and the real `hiresmed` program in folders of its own.
//!
//! `tests/fleet` runs the two libraries in one process with a stand-in for the work, `tests/faults` the same as processes that are
//! killed on real servers; `tests/services` runs the fleet's backends on real servers, `tests/api` the coordinator as a process
//! that is called over HTTP, `tests/program` the program on one machine.
//!
//! This library is their harness: [`servers`] starts private RabbitMQ, Redis, SeaweedFS and Orthanc servers, [`proxy`] stands between
//! a program and a server and disturbs what goes through, [`fleet`] starts and kills the parts of a fleet, [`imitation`] is the
//! stand-in for the work. They fail by panic, with what to do about it: they serve tests.

pub mod fleet;
pub mod imitation;
pub mod proxy;
pub mod servers;
