//! JSON Schemas (draft 2020-12) of every document.

use schemars::{Schema, schema_for};

use crate::{Event, Job, Manifest, Outcome, Plan, Request, attempt::Attempt, event::Control, job::DataFiles};

/// Every document's name and schema. The files `schema/{name}.json` beside the code hold the same.
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("request", schema_for!(Request)),
        ("plan", schema_for!(Plan)),
        ("job", schema_for!(Job)),
        ("attempt", schema_for!(Attempt)),
        ("outcome", schema_for!(Outcome)),
        ("event", schema_for!(Event)),
        ("control", schema_for!(Control)),
        ("data-files", schema_for!(DataFiles)),
        ("manifest", schema_for!(Manifest)),
    ]
}
