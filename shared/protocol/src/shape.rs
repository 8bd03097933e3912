//! Holding a request's text against its schema: every fault of its shape at once. What is at fault is replaced, so that
//! the rest can be read and its values checked too.

use serde_json::{Map, Value};

use crate::validate::Fault;

/// Names every key of the table `value` that `schema` does not know, every required one that is missing, and every value
/// of the wrong type. Afterwards `value` can be deserialised: unknown keys and wrong values are gone, and blanks stand
/// where a required one was wrong or missing.
pub(crate) fn check(schema: &Value, value: &mut Value) -> Vec<Fault> {
    let mut walk = Walk { root: schema, faults: Vec::new() };
    walk.fits(schema, value, "");
    walk.faults
}

struct Walk<'a> {
    root: &'a Value,
    faults: Vec<Fault>,
}

impl Walk<'_> {
    /// Whether the value itself can stay; what is wrong inside it is put right.
    fn fits(&mut self, schema: &Value, value: &mut Value, path: &str) -> bool {
        let schema = resolve(self.root, schema);
        if let Some(allowed) = misfit(schema, value) {
            self.faults.push(Fault::new(path, shorten(value), allowed));
            return false;
        }
        match (value, schema.get("properties"), schema.get("items")) {
            (Value::Object(table), Some(Value::Object(known)), _) => self.table(schema, known, table, path),
            (Value::Array(items), _, Some(schema)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if !self.fits(schema, item, &format!("{path}[{index}]")) {
                        *item = blank(self.root, schema);
                    }
                }
            }
            _ => {}
        }
        true
    }

    fn table(&mut self, schema: &Value, known: &Map<String, Value>, table: &mut Map<String, Value>, path: &str) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        for key in required(schema).filter(|key| !table.contains_key(*key)) {
            self.faults.push(Fault::new(join(key), "missing", "is required"));
        }
        let given = std::mem::take(table);
        for (key, mut value) in given {
            let path = join(&key);
            match known.get(&key) {
                Some(schema) if self.fits(schema, &mut value, &path) => drop(table.insert(key, value)),
                Some(_) => {}
                None => {
                    let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    self.faults.push(Fault::new(path, shorten(&value), format!("unknown key; known here: {names}")));
                }
            }
        }
        fill(self.root, schema, table);
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Puts blanks where required keys are missing.
fn fill(root: &Value, schema: &Value, table: &mut Map<String, Value>) {
    for key in required(schema) {
        if !table.contains_key(key) {
            table.insert(key.to_owned(), blank(root, &schema["properties"][key]));
        }
    }
}

/// A value of the schema's shape.
fn blank(root: &Value, schema: &Value) -> Value {
    let schema = resolve(root, schema);
    if let Some(first) = alternatives(schema).next() {
        return blank(root, first);
    }
    if let Some(first) = constants(schema).next() {
        return first.clone();
    }
    match types(schema).next() {
        Some("integer" | "number") => 0.into(),
        Some("string") => "".into(),
        Some("boolean") => false.into(),
        Some("array") => {
            let length = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0);
            (0..length).map(|_| blank(root, &schema["items"])).collect()
        }
        Some("object") => {
            let mut table = Map::new();
            fill(root, schema, &mut table);
            table.into()
        }
        _ => Value::Null,
    }
}

/// What the schema wants in place of `value`, continuing the sentence that begins with the key.
fn misfit(schema: &Value, value: &Value) -> Option<String> {
    if let Some(first) = alternatives(schema).next() {
        // Told is the usual one; what the checks of values say of the key names the others.
        let fits = alternatives(schema).any(|schema| misfit(schema, value).is_none());
        return if fits { None } else { misfit(first, value) };
    }
    let mut constants = constants(schema).peekable();
    if constants.peek().is_some() {
        let names: Vec<String> = constants.map(Value::to_string).collect();
        let wrong = !names.contains(&value.to_string());
        return wrong.then(|| format!("must be {}", either(&names)));
    }
    let mut wanted = types(schema).peekable();
    let wrong = wanted.peek().is_some() && !wanted.any(|name| is(schema, name, value));
    wrong.then(|| {
        let name = match types(schema).next() {
            Some("integer") => "a whole number",
            Some("number") => "a number",
            Some("string") => "text",
            Some("boolean") => "true or false",
            Some("array") => match schema.get("minItems").and_then(Value::as_u64) {
                Some(length) => return format!("must be a list of {length}"),
                None => "a list",
            },
            _ => "a table",
        };
        format!("must be {name}")
    })
}

fn is(schema: &Value, name: &str, value: &Value) -> bool {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match name {
        // Every whole number of a request is a count: none is negative.
        "integer" => value.as_u64().is_some_and(|value| schema["format"] != "uint32" || u32::try_from(value).is_ok()),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "array" => value.as_array().is_some_and(|items| {
            let length = items.len() as u64;
            bound("minItems").is_none_or(|least| length >= least) && bound("maxItems").is_none_or(|most| length <= most)
        }),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn constants(schema: &Value) -> impl Iterator<Item = &Value> {
    let alternatives = schema.get("oneOf").and_then(Value::as_array);
    let several = alternatives.into_iter().flatten().filter_map(|alternative| alternative.get("const"));
    schema.get("const").into_iter().chain(several)
}

/// The schemas of which a value fits one.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    schema.get("anyOf").and_then(Value::as_array).into_iter().flatten()
}

fn types(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Value::as_str);
    let several = schema.get("type").and_then(Value::as_array);
    one.into_iter().chain(several.into_iter().flatten().filter_map(Value::as_str))
}

fn either(names: &[String]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        names => names.concat(),
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
