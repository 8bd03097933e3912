//! JSON Schemas (draft 2020-12) of every document, and the check of a table's keys against one.

use schemars::{Schema, schema_for};
use serde_json::Value;

use crate::{
    Event, Job, Manifest, Outcome, Plan, Request, attempt::Attempt, event::Control, job::DataFiles, validate::Fault,
};

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

/// Names every key of `value` that `schema` does not know, and every required key that is missing. Unknown keys are
/// removed, so that the rest can be read.
pub(crate) fn check_keys(schema: &Value, value: &mut Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    check_table(schema, schema, value, "", &mut faults);
    faults
}

fn check_table(root: &Value, schema: &Value, value: &mut Value, path: &str, faults: &mut Vec<Fault>) {
    let schema = resolve(root, schema);
    let (Some(table), Some(known)) = (value.as_object_mut(), schema.get("properties").and_then(Value::as_object))
    else {
        return;
    };
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let mut unknown = Vec::new();
    for (key, inner) in table.iter_mut() {
        match known.get(key) {
            Some(schema) => check_table(root, schema, inner, &join(key), faults),
            None => unknown.push(key.clone()),
        }
    }
    for key in unknown {
        let value = table.remove(&key).unwrap_or_default();
        let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        faults.push(Fault::new(join(&key), shorten(&value), format!("unknown key; known here: {names}")));
    }
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !table.contains_key(key) {
            faults.push(Fault::new(join(key), "missing", "is required"));
        }
    }
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
