//! The exported JSON Schemas: equal to the code, valid, and true for real documents.

use std::{fs, path::Path};

use hiresmed_protocol::{parse, schema};
use serde_json::{Value, json};

fn stored(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(format!("{name}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_stored_schemas_are_those_of_the_code() {
    let all = schema::all();
    for (name, schema) in &all {
        let current = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
        assert!(
            stored(name) == current,
            "schema/{name}.json differs from the code; if that is meant, run\n  \
             cargo run -p hiresmed-protocol --example export_schema\nand say in the change what differs"
        );
    }
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("schema")).unwrap().count();
    assert_eq!(files, all.len(), "a schema of a document that is no more");
}

#[test]
fn the_schemas_are_valid_and_accept_what_the_code_writes() {
    for (name, schema) in schema::all() {
        jsonschema::meta::validate(schema.as_value()).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let schema: Value = serde_json::from_str(&stored("request")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let request = parse::toml("version = 1\nkind = \"synthesise\"\ncount = 3").unwrap();
    let written: Value = serde_json::from_str(&request.to_canonical_json()).unwrap();
    let faults: Vec<String> = validator.iter_errors(&written).map(|error| error.to_string()).collect();
    assert_eq!(faults, Vec::<String>::new());
    for refused in [
        json!({"version": 1, "kind": "synthesise"}),
        json!({"version": 1, "kind": "paint", "count": 1}),
        json!({"version": 1, "kind": "synthesise", "count": "many"}),
        json!({"version": 1, "kind": "synthesise", "count": 1, "lesions": {"number": 3}}),
    ] {
        assert!(!validator.is_valid(&refused), "{refused}");
    }
}
