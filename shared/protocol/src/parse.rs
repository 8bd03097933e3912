//! Reading a request from text, with errors that a person can act on.
//!
//! A text is read in three steps: its syntax; its keys, held against the schema, so that all unknown and missing keys are
//! named at once; its values, with line and column where a type is wrong. What the types allow is then checked by
//! [`Request::validate`].

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use crate::{
    request::{Request, Synthesise, Train},
    schema,
    validate::{Fault, Faults},
};

/// Why a text is not a request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is not TOML or JSON, or a value has the wrong type.
    #[error("line {line}, column {column}{}: {cause}", at(.path))]
    Text {
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// The key that it concerns, with dots; empty where none is known.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// Keys are unknown or missing, or values are out of their ranges.
    #[error(transparent)]
    Faults(#[from] Faults),
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(", `{path}`") }
}

/// Reads a request in TOML and validates it.
///
/// # Errors
/// [`Error::Text`] with line and column, or [`Error::Faults`] with everything that is wrong with keys and values.
pub fn toml(text: &str) -> Result<Request, Error> {
    let value: Value = ::toml::from_str(text).map_err(|error| toml_error(text, &error, String::new()))?;
    read(value, text, Format::Toml)
}

/// Reads a request in JSON and validates it.
///
/// # Errors
/// As [`toml()`].
pub fn json(text: &str) -> Result<Request, Error> {
    let value: Value = serde_json::from_str(text).map_err(|error| json_error(text, &error, String::new()))?;
    read(value, text, Format::Json)
}

#[derive(Clone, Copy)]
enum Format {
    Toml,
    Json,
}

fn read(mut value: Value, text: &str, format: Format) -> Result<Request, Error> {
    let synthesise = is_synthesise(&value)?;
    let whole = value.clone();
    if let Some(table) = value.as_object_mut() {
        table.remove("kind");
    }
    let schema = if synthesise { ::schemars::schema_for!(Synthesise) } else { ::schemars::schema_for!(Train) };
    let faults = schema::check_keys(schema.as_value(), &mut value);
    if !faults.is_empty() {
        return Err(Faults::from(with_values(faults, value, &whole)).into());
    }
    let request =
        if synthesise { Request::Synthesise(typed(text, format)?) } else { Request::Train(typed(text, format)?) };
    request.validate()?;
    Ok(request)
}

/// The faults of the keys, and those of the values as far as they can be read without the unknown keys.
fn with_values(mut faults: Vec<Fault>, mut pruned: Value, whole: &Value) -> Vec<Fault> {
    if let (Some(table), Some(kind)) = (pruned.as_object_mut(), whole.get("kind")) {
        table.insert("kind".to_owned(), kind.clone());
    }
    if let Ok(request) = serde_json::from_value::<Request>(pruned)
        && let Err(more) = request.validate()
    {
        faults.extend(more.iter().cloned());
    }
    faults
}

fn is_synthesise(value: &Value) -> Result<bool, Error> {
    let allowed = "must be \"synthesise\" or \"train\"";
    let fault = |value: String| Error::from(Faults::from(vec![Fault::new("kind", value, allowed)]));
    match value.get("kind") {
        None => Err(fault("missing".to_owned())),
        Some(kind) => match kind.as_str() {
            Some("synthesise") => Ok(true),
            Some("train") => Ok(false),
            _ => Err(fault(kind.to_string())),
        },
    }
}

fn typed<T: DeserializeOwned>(text: &str, format: Format) -> Result<T, Error> {
    match format {
        Format::Toml => {
            let deserializer =
                ::toml::Deserializer::parse(text).map_err(|error| toml_error(text, &error, String::new()))?;
            serde_path_to_error::deserialize::<_, WithoutKind<T>>(deserializer)
                .map_err(|error| toml_error(text, error.inner(), error.path().to_string()))
        }
        Format::Json => {
            let mut deserializer = serde_json::Deserializer::from_str(text);
            serde_path_to_error::deserialize::<_, WithoutKind<T>>(&mut deserializer)
                .map_err(|error| json_error(text, error.inner(), error.path().to_string()))
        }
    }
    .map(|read| read.0)
}

fn toml_error(text: &str, error: &::toml::de::Error, path: String) -> Error {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or("");
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Error::Text {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        path: known_path(path),
        cause: error.message().trim().to_owned(),
    }
}

fn json_error(text: &str, error: &serde_json::Error, path: String) -> Error {
    let whole = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or("");
    // serde_json counts bytes; people count characters.
    let bytes = error.column().saturating_sub(1).min(line.len());
    let column = line.char_indices().take_while(|(start, _)| *start < bytes).count() + 1;
    Error::Text {
        line: error.line().max(1),
        column,
        path: known_path(path),
        cause: whole.strip_suffix(&position).unwrap_or(&whole).to_owned(),
    }
}

fn known_path(path: String) -> String {
    if path == "." || path == "?" { String::new() } else { path }
}

/// Deserialises a table as `T` without its key `kind`, keeping the positions that an internally tagged enum loses.
struct WithoutKind<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WithoutKind<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Table<T> {
            type Value = WithoutKind<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(SkipKind(map))).map(WithoutKind)
            }
        }

        deserializer.deserialize_map(Table(std::marker::PhantomData))
    }
}

struct SkipKind<A>(A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for SkipKind<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let Some(mut key) = self.0.next_key::<String>()? else { return Ok(None) };
        while key == "kind" {
            self.0.next_value::<IgnoredAny>()?;
            match self.0.next_key::<String>()? {
                Some(next) => key = next,
                None => return Ok(None),
            }
        }
        seed.deserialize(serde::de::value::StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.0.next_value_seed(seed)
    }
}
