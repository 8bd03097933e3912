//! The three services that a fleet stands on, each a trait, its backends and a conformance suite.
//!
//! - [`store`]: objects by key; the truth. Backend here: a directory.
//! - [`queue`]: work in flight, events, control. Backend here: SQLite.
//! - [`cache`]: values that may vanish, and locks. Backend here: the process's own memory.
//!
//! A backend is right when the conformance suite passes (feature `conformance`); code elsewhere relies on nothing that
//! the suite does not hold. This crate must not know what the bytes mean that it keeps and carries.

pub mod cache;
pub mod queue;
pub mod store;
