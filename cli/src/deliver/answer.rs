//! An archive's answers: the Store Instances Response Module of STOW-RS (PS3.18 10.5.3, I.2) and the instances that QIDO-RS
//! found (PS3.18 10.6.3), both in the DICOM JSON Model (PS3.18 annex F).
//!
//! Archives differ in details, so what can be understood without guessing is taken: one object or an array of them, codes as
//! numbers or as decimal text, UIDs with padding.

use std::collections::HashMap;

use serde_json::Value;

const SOP_INSTANCE_UID: &str = "00080018";
const REFERENCED_SOP_INSTANCE_UID: &str = "00081155";
const WARNING_REASON: &str = "00081196";
const FAILURE_REASON: &str = "00081197";
const FAILED_SOP_SEQUENCE: &str = "00081198";
const REFERENCED_SOP_SEQUENCE: &str = "00081199";
const OTHER_FAILURES_SEQUENCE: &str = "0008119A";

/// What an answer says of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It is stored; with a Warning Reason where the archive changed it.
    Stored(Option<u16>),
    /// It is not, with the Failure Reason if there is one.
    Failed(Option<u16>),
}

/// What an answer to a store says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// By SOP Instance UID.
    pub instances: HashMap<String, Given>,
    /// Failures that name no instance.
    pub nameless: Vec<Option<u16>>,
}

/// Reads an answer to a store.
///
/// # Errors
/// It is no DICOM JSON; the text says why and quotes nothing of it.
pub fn stored(body: &[u8]) -> Result<Stored, String> {
    let mut answer = Stored::default();
    for object in objects(body)? {
        for item in items(&object, REFERENCED_SOP_SEQUENCE) {
            if let Some(uid) = text(item, REFERENCED_SOP_INSTANCE_UID) {
                answer.instances.entry(uid).or_insert(Given::Stored(code(item, WARNING_REASON)));
            }
        }
        for item in items(&object, FAILED_SOP_SEQUENCE) {
            let reason = code(item, FAILURE_REASON);
            match text(item, REFERENCED_SOP_INSTANCE_UID) {
                // Of an instance that is in both lists the worse is believed.
                Some(uid) => drop(answer.instances.insert(uid, Given::Failed(reason))),
                None => answer.nameless.push(reason),
            }
        }
        answer.nameless.extend(items(&object, OTHER_FAILURES_SEQUENCE).map(|item| code(item, FAILURE_REASON)));
    }
    Ok(answer)
}

/// Reads the SOP Instance UIDs of a search's answer.
///
/// # Errors
/// It is no DICOM JSON.
pub fn found(body: &[u8]) -> Result<Vec<String>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    Ok(objects(body)?.iter().filter_map(|object| text(object, SOP_INSTANCE_UID)).collect())
}

fn objects(body: &[u8]) -> Result<Vec<Value>, String> {
    match serde_json::from_slice(body) {
        Ok(Value::Array(objects)) if objects.iter().all(Value::is_object) => Ok(objects),
        Ok(object @ Value::Object(_)) => Ok(vec![object]),
        Ok(_) => Err("it is JSON, and no data set".to_owned()),
        // Its own text has places and kinds, and nothing of the content.
        Err(error) => Err(format!("it is no JSON ({})", kind(&error))),
    }
}

fn kind(error: &serde_json::Error) -> &'static str {
    if error.is_eof() { "it ends too early" } else { "malformed" }
}

fn values<'a>(object: &'a Value, tag: &str) -> &'a [Value] {
    object.get(tag).and_then(|element| element.get("Value")).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn items<'a>(object: &'a Value, tag: &str) -> impl Iterator<Item = &'a Value> {
    values(object, tag).iter().filter(|item| item.is_object())
}

fn text(object: &Value, tag: &str) -> Option<String> {
    let text = values(object, tag).first()?.as_str()?.trim_matches(['\0', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn code(object: &Value, tag: &str) -> Option<u16> {
    match values(object, tag).first()? {
        Value::Number(number) => number.as_u64().and_then(|code| u16::try_from(code).ok()),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(uid: &str, more: Value) -> Value {
        let mut item =
            json!({ "00081150": { "vr": "UI", "Value": ["1.2"] }, "00081155": { "vr": "UI", "Value": [uid] } });
        for (tag, element) in more.as_object().unwrap() {
            item[tag] = element.clone();
        }
        item
    }

    #[test]
    fn stored_warned_and_failed_instances_are_told_apart() {
        let body = json!({
            "00081190": { "vr": "UR", "Value": ["https://pacs/studies/1"] },
            "00081199": { "vr": "SQ", "Value": [
                item("1.1", json!({})),
                item("1.2\u{0}", json!({ "00081196": { "vr": "US", "Value": [45056] } })),
                item("1.3", json!({})),
            ] },
            "00081198": { "vr": "SQ", "Value": [
                item("1.3", json!({ "00081197": { "vr": "US", "Value": [290] } })),
                item("1.4", json!({ "00081197": { "vr": "US", "Value": ["49442"] } })),
                item("1.5", json!({})),
                { "00081197": { "vr": "US", "Value": [272] } },
            ] },
            "0008119A": { "vr": "SQ", "Value": [{ "00081197": { "vr": "US", "Value": [42752] } }] },
        });
        let one = stored(body.to_string().as_bytes()).unwrap();
        let expected = [
            ("1.1", Given::Stored(None)),
            ("1.2", Given::Stored(Some(0xB000))),
            ("1.3", Given::Failed(Some(0x0122))),
            ("1.4", Given::Failed(Some(0xC122))),
            ("1.5", Given::Failed(None)),
        ];
        assert_eq!(one.instances, expected.map(|(uid, given)| (uid.to_owned(), given)).into());
        assert_eq!(one.nameless, [Some(0x0110), Some(0xA700)]);
        assert_eq!(stored(json!([body]).to_string().as_bytes()).unwrap(), one);
        let text = body.to_string().into_bytes();
        for length in 0..text.len() {
            stored(&text[..length]).unwrap_err();
            // Any byte may be another: it is understood in some way or refused.
            let mut changed = text.clone();
            changed[length] ^= 0x15;
            drop(stored(&changed));
        }
    }

    #[test]
    fn empty_sequences_say_nothing() {
        // Orthanc's, without values.
        let body = br#"{"00081198":{"vr":"SQ"},"00081199":{"vr":"SQ","Value":[]}}"#;
        assert_eq!(stored(body).unwrap(), Stored::default());
    }

    #[test]
    fn what_is_no_answer_is_said_and_not_quoted() {
        for (body, cause) in [
            (&b"<html>DOE^JANE</html>"[..], "malformed"),
            (br#"{"00081199":{"vr":"SQ","Value":[{"0"#, "ends too early"),
            (b"", "ends too early"),
            (b"7", "no data set"),
            (b"[1]", "no data set"),
            (&[b'['; 100_000], "malformed"),
        ] {
            let error = stored(body).unwrap_err();
            assert!(error.contains(cause) && !error.contains("DOE"), "{error}");
        }
        // Nonsense in the right places.
        for body in [
            &br#"{"00081199":7,"00081198":{"Value":"x"}}"#[..],
            br#"{"00081199":{"Value":[null,{"00081155":{"Value":[7]}}]},"00081198":{"Value":[[]]}}"#,
        ] {
            assert_eq!(stored(body).unwrap(), Stored::default());
        }
    }

    #[test]
    fn a_search_may_find_nothing() {
        assert!(found(b"").unwrap().is_empty() && found(b"[]").unwrap().is_empty());
        let body = json!([{ "00080018": { "vr": "UI", "Value": ["1.2.3"] } }, {}]);
        assert_eq!(found(body.to_string().as_bytes()).unwrap(), ["1.2.3"]);
        assert!(found(b"<html>").is_err());
    }
}
