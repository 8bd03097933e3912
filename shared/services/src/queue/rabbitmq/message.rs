//! Messages as AMQP carries them.

use std::collections::BTreeMap;

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use crate::queue::{Error, Message, Result};

/// The largest payload, in bytes.
const MOST_BYTES: usize = 1 << 20;

/// Header with a name of each publication: message ids may repeat.
const PUBLICATION: &str = "hiresmed-publication";

/// Headers that the broker writes.
const BROKERS: [&str; 9] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "x-acquired-count",
];

/// A short string, where the text is short enough: AMQP's limit is 255 bytes.
pub(super) fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// A message made ready, with the name of this publication.
pub(super) struct Publication {
    pub(super) name: String,
    pub(super) properties: BasicProperties,
}

/// Makes a message ready.
///
/// # Errors
/// [`Error::NotConfirmed`] where it is too large or its id or a header's name too long.
pub(super) fn publication(message: &Message) -> Result<Publication> {
    let refuse = |cause: String| Error::NotConfirmed { id: message.id.chars().take(80).collect(), cause };
    if message.payload.len() > MOST_BYTES {
        return Err(refuse(format!("it has {} bytes; at most {MOST_BYTES} are allowed", message.payload.len())));
    }
    let id = short(&message.id).ok_or_else(|| refuse("its id is longer than 255 bytes".to_owned()))?;
    let name = crate::nonce();
    let mut headers = FieldTable::default();
    for (key, value) in &message.headers {
        let key = short(key).ok_or_else(|| refuse("a header's name is longer than 255 bytes".to_owned()))?;
        headers.insert(key, AMQPValue::LongString(value.as_str().into()));
    }
    headers.insert(PUBLICATION.into(), AMQPValue::LongString(name.as_str().into()));
    // Delivery mode 2: the message survives the broker's restart.
    let properties = BasicProperties::default().with_message_id(id).with_delivery_mode(2).with_headers(headers);
    Ok(Publication { name, properties })
}

/// The message that came. Its parts stay readable whoever published it.
pub(super) fn received(properties: &BasicProperties, payload: Vec<u8>) -> Message {
    let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
    let mut headers = BTreeMap::new();
    if let Some(table) = properties.headers() {
        for (key, value) in table {
            if key.as_str() == PUBLICATION || BROKERS.contains(&key.as_str()) {
                continue;
            }
            if let Some(value) = as_text(value) {
                headers.insert(key.to_string(), value);
            }
        }
    }
    Message { id, payload: Bytes::from(payload), headers }
}

/// The publication's name; for messages that others published, a digest of what tells them apart.
pub(super) fn publication_name(properties: &BasicProperties, payload: &[u8]) -> String {
    header(properties, PUBLICATION).unwrap_or_else(|| {
        let id = properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        let parts = [id.as_bytes(), &crate::sha256(payload)];
        hex::encode(&crate::sha256(&parts.concat())[..16])
    })
}

/// A header that is a text.
pub(super) fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    as_text(properties.headers().as_ref()?.inner().get(name)?)
}

/// How often the message came back: the header is absent at first.
pub(super) fn delivery_count(properties: &BasicProperties) -> u32 {
    let header = properties.headers().as_ref().and_then(|table| table.inner().get("x-delivery-count"));
    let count = match header {
        Some(AMQPValue::LongLongInt(count)) => *count,
        Some(AMQPValue::LongInt(count)) => i64::from(*count),
        Some(AMQPValue::LongUInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
        Some(AMQPValue::ShortShortUInt(count)) => i64::from(*count),
        _ => 0,
    };
    u32::try_from(count.max(0)).unwrap_or(u32::MAX)
}

fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_went() {
        let mut message = Message::new("ünï", vec![1, 2]);
        message.headers.insert("x-mine".to_owned(), "é".to_owned());
        let properties = publication(&message).unwrap().properties;
        assert_eq!(received(&properties, vec![1, 2]), message);
        assert_eq!((delivery_count(&properties), received(&BasicProperties::default(), vec![]).id.as_str()), (0, ""));
    }

    #[test]
    fn publications_of_one_message_have_different_names() {
        let message = Message::new("m", vec![1]);
        let name = |_| publication_name(&publication(&message).unwrap().properties, &[1]);
        assert_ne!(name(0), name(1));
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        let long = "x".repeat(256);
        let mut headed = Message::new("m", vec![]);
        headed.headers.insert(long.clone(), String::new());
        for message in [Message::new(long.clone(), vec![]), headed, Message::new("m", vec![0; MOST_BYTES + 1])] {
            assert!(matches!(publication(&message), Err(Error::NotConfirmed { .. })));
        }
    }
}
