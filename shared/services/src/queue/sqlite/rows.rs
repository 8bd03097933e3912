//! What the broker's operations do to the rows. Each function runs within a transaction.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::connection::Failed;
use crate::queue::{DeadLetter, DeathReason, Declaration, Depth, Error, Message};

type Result<T> = std::result::Result<T, Failed>;

/// Greatest length in bytes of a message's content.
const GREATEST_PAYLOAD_BYTES: usize = 1 << 20;

/// A message in the hands of a consumer.
pub(super) struct Leased {
    pub(super) number: i64,
    pub(super) message: Message,
    pub(super) returns: u32,
}

pub(super) fn declare(db: &Connection, declaration: &Declaration) -> Result<()> {
    let Declaration { queue, delivery_limit } = declaration;
    let existing: Option<u32> =
        db.query_row("SELECT delivery_limit FROM queues WHERE name = ?1", [queue], |row| row.get(0)).optional()?;
    match existing {
        None => {
            db.execute("INSERT INTO queues (name, delivery_limit) VALUES (?1, ?2)", params![queue, delivery_limit])?;
            Ok(())
        }
        Some(existing) if existing == *delivery_limit => Ok(()),
        Some(existing) => Err(Error::Mismatch {
            queue: queue.clone(),
            existing: format!("delivery limit {existing}"),
            wanted: format!("delivery limit {delivery_limit}"),
        }
        .into()),
    }
}

pub(super) fn check_exists(db: &Connection, queue: &str) -> Result<()> {
    let found: bool =
        db.query_row("SELECT EXISTS (SELECT 1 FROM queues WHERE name = ?1)", [queue], |row| row.get(0))?;
    if found { Ok(()) } else { Err(Error::UnknownQueue(queue.to_owned()).into()) }
}

pub(super) fn publish(
    db: &Connection,
    queue: &str,
    messages: &[Message],
) -> Result<Vec<std::result::Result<(), Error>>> {
    check_exists(db, queue)?;
    let mut insert = db.prepare_cached("INSERT INTO messages (queue, id, payload, headers) VALUES (?1, ?2, ?3, ?4)")?;
    messages
        .iter()
        .map(|message| {
            let refuse = |cause: String| Ok(Err(Error::NotConfirmed { id: message.id.clone(), cause }));
            if message.payload.len() > GREATEST_PAYLOAD_BYTES {
                return refuse(format!("its {} bytes are more than 1 MiB", message.payload.len()));
            }
            match serde_json::to_string(&message.headers) {
                Ok(headers) => {
                    insert.execute(params![queue, message.id, &message.payload[..], headers])?;
                    Ok(Ok(()))
                }
                Err(error) => refuse(error.to_string()),
            }
        })
        .collect()
}

/// Gives the oldest ready message of `queue` to `consumer`.
pub(super) fn lease(db: &Connection, queue: &str, consumer: &str) -> Result<Option<Leased>> {
    // Who was taken for dead must not lease: nobody would look for its deliveries again.
    let alive: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM consumers WHERE id = ?1)")?
        .query_row([consumer], |row| row.get(0))?;
    if !alive {
        let cause = "this consumer's lock file was removed, and its deliveries were returned".to_owned();
        return Err(Error::Unreachable { endpoint: queue.to_owned(), cause }.into());
    }
    let mut update = db.prepare_cached(
        "UPDATE messages SET consumer = ?2
         WHERE number = (SELECT number FROM messages WHERE queue = ?1 AND consumer IS NULL ORDER BY number LIMIT 1)
         RETURNING id, payload, headers, number, returns",
    )?;
    let leased = update
        .query_row([queue, consumer], |row| {
            Ok(Leased { message: read_message(row)?, number: row.get(3)?, returns: row.get(4)? })
        })
        .optional()?;
    Ok(leased)
}

pub(super) fn is_ready(db: &Connection, queue: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM messages WHERE queue = ?1 AND consumer IS NULL)")?
        .query_row([queue], |row| row.get(0))
}

/// Forgets a leased message; says whether it was the consumer's.
pub(super) fn acknowledge(db: &Connection, number: i64, consumer: &str) -> Result<bool> {
    let gone = db.execute("DELETE FROM messages WHERE number = ?1 AND consumer = ?2", params![number, consumer])?;
    Ok(gone == 1)
}

/// Makes a leased message a dead letter; says whether it was the consumer's.
pub(super) fn reject(db: &Connection, number: i64, consumer: &str) -> Result<bool> {
    let copied = db.execute(
        "INSERT INTO dead_letters (queue, id, payload, headers, reason)
         SELECT queue, id, payload, headers, 'rejected' FROM messages WHERE number = ?1 AND consumer = ?2",
        params![number, consumer],
    )?;
    Ok(copied == 1 && acknowledge(db, number, consumer)?)
}

/// Returns a consumer's leased message, or all of them; says how many.
pub(super) fn give_back(db: &Connection, number: Option<i64>, consumer: &str) -> Result<usize> {
    db.execute(
        "INSERT INTO dead_letters (queue, id, payload, headers, reason)
         SELECT queue, id, payload, headers, 'delivery_limit' FROM messages
         JOIN queues ON queues.name = messages.queue
         WHERE consumer = ?2 AND (?1 IS NULL OR number = ?1) AND returns >= delivery_limit
         ORDER BY number",
        params![number, consumer],
    )?;
    let died = db.execute(
        "DELETE FROM messages WHERE consumer = ?2 AND (?1 IS NULL OR number = ?1)
         AND returns >= (SELECT delivery_limit FROM queues WHERE name = messages.queue)",
        params![number, consumer],
    )?;
    let returned = db.execute(
        "UPDATE messages SET consumer = NULL, returns = returns + 1 WHERE consumer = ?2 AND (?1 IS NULL OR number = ?1)",
        params![number, consumer],
    )?;
    Ok(died + returned)
}

pub(super) fn depth(db: &Connection, queue: &str) -> Result<Depth> {
    check_exists(db, queue)?;
    let depth = db.query_row(
        "SELECT count(*) FILTER (WHERE consumer IS NULL), count(*) FILTER (WHERE consumer IS NOT NULL)
         FROM messages WHERE queue = ?1",
        [queue],
        |row| {
            let (ready, unacknowledged): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Depth { ready: ready.unsigned_abs(), unacknowledged: Some(unacknowledged.unsigned_abs()) })
        },
    )?;
    Ok(depth)
}

pub(super) fn purge(db: &Connection, queue: &str) -> Result<u64> {
    check_exists(db, queue)?;
    Ok(db.execute("DELETE FROM messages WHERE queue = ?1 AND consumer IS NULL", [queue])? as u64)
}

pub(super) fn dead_letters(db: &Connection, limit: usize) -> Result<Vec<DeadLetter>> {
    let mut select = db.prepare_cached(
        "SELECT id, payload, headers, number, queue, reason FROM dead_letters ORDER BY number LIMIT ?1",
    )?;
    let letters = select.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        let reason: String = row.get(5)?;
        Ok(DeadLetter {
            message: read_message(row)?,
            id: row.get::<_, i64>(3)?.to_string(),
            queue: row.get(4)?,
            reason: if reason == "rejected" { DeathReason::Rejected } else { DeathReason::DeliveryLimit },
        })
    })?;
    Ok(letters.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn retry_dead_letter(db: &Connection, id: &str) -> Result<()> {
    db.execute(
        "INSERT INTO messages (queue, id, payload, headers)
         SELECT queue, id, payload, headers FROM dead_letters WHERE number = ?1",
        [dead_letter_number(id)?],
    )?;
    discard_dead_letter(db, id)
}

pub(super) fn discard_dead_letter(db: &Connection, id: &str) -> Result<()> {
    match db.execute("DELETE FROM dead_letters WHERE number = ?1", [dead_letter_number(id)?])? {
        0 => Err(Error::UnknownDeadLetter(id.to_owned()).into()),
        _ => Ok(()),
    }
}

fn dead_letter_number(id: &str) -> Result<i64> {
    id.parse().map_err(|_| Error::UnknownDeadLetter(id.to_owned()).into())
}

/// Reads a message from columns 0 to 2: id, payload, headers.
fn read_message(row: &Row) -> rusqlite::Result<Message> {
    let headers: String = row.get(2)?;
    let headers: BTreeMap<String, String> = serde_json::from_str(&headers)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, error.into()))?;
    Ok(Message { id: row.get(0)?, payload: row.get::<_, Vec<u8>>(1)?.into(), headers })
}
