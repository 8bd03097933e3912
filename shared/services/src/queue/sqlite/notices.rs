//! Events and control messages: rows that each subscriber reads once, in order, from where it began.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, params};
use tokio::task::JoinHandle;

use super::{POLL, Shared, connection::Failed};
use crate::queue::{Notice, Result, Subscription, topic};

/// How many notices are kept: who is further behind loses the oldest.
const KEPT: i64 = 20_000;

/// Notices read at a time.
const PIECE: i64 = 256;

/// Writes an event, or a control message where `topic` is `None`.
pub(super) fn publish(db: &Transaction, topic: Option<&str>, payload: &[u8]) -> Result<(), Failed> {
    db.prepare_cached("INSERT INTO notices (topic, payload) VALUES (?1, ?2)")?.execute(params![topic, payload])?;
    let number = db.last_insert_rowid();
    if number % PIECE == 0 {
        db.execute("DELETE FROM notices WHERE number <= ?1", [number - KEPT])?;
    }
    Ok(())
}

fn last(db: &Connection) -> rusqlite::Result<i64> {
    // The greatest number ever given, also where its row is gone.
    db.query_row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'notices'", [], |row| row.get(0))
}

/// A piece of the notices after `last`, and the number of its last one.
struct Piece {
    last: i64,
    notices: Vec<Notice>,
}

fn read(db: &Connection, last: i64, pattern: Option<&str>) -> rusqlite::Result<Piece> {
    let mut select =
        db.prepare_cached("SELECT number, topic, payload FROM notices WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let mut rows = select.query([last, PIECE])?;
    let mut piece = Piece { last, notices: Vec::new() };
    while let Some(row) = rows.next()? {
        piece.last = row.get(0)?;
        let topic: Option<String> = row.get(1)?;
        let wanted = match (pattern, &topic) {
            (Some(pattern), Some(topic)) => topic::matches(pattern, topic),
            (None, None) => true,
            _ => false,
        };
        if wanted {
            let payload: Vec<u8> = row.get(2)?;
            piece.notices.push(Notice { topic: topic.unwrap_or_default(), payload: payload.into() });
        }
    }
    Ok(piece)
}

/// Receives the notices that come after it was made.
pub(super) struct Subscriber {
    shared: Arc<Shared>,
    pattern: Option<String>,
    last: i64,
    ready: VecDeque<Notice>,
    /// A read under way. It outlives a dropped future of `next`.
    pending: Option<JoinHandle<Result<Piece>>>,
}

impl Subscriber {
    /// Subscribes to events that match `pattern`, or to control messages where it is `None`.
    pub(super) async fn start(shared: Arc<Shared>, pattern: Option<String>) -> Result<Self> {
        let last = shared.volatile.call(|db| Ok(last(db)?)).await?;
        Ok(Self { shared, pattern, last, ready: VecDeque::new(), pending: None })
    }

    /// Reads what has come, if anything has.
    async fn fill(&mut self) -> Result<bool> {
        if self.pending.is_none() {
            let (shared, last, pattern) = (self.shared.clone(), self.last, self.pattern.clone());
            self.pending = Some(tokio::task::spawn_blocking(move || {
                shared.volatile.look(|db| read(db, last, pattern.as_deref()))
            }));
        }
        let Some(pending) = self.pending.as_mut() else { return Ok(false) };
        let finished = pending.await;
        self.pending = None;
        let piece = finished.unwrap_or_else(|stopped| Err(self.shared.volatile.stopped(&stopped)))?;
        let moved = piece.last > self.last;
        self.last = piece.last;
        self.ready.extend(piece.notices);
        Ok(moved)
    }
}

#[async_trait]
impl Subscription for Subscriber {
    async fn next(&mut self) -> Result<Notice> {
        let shared = self.shared.clone();
        loop {
            if let Some(notice) = self.ready.pop_front() {
                return Ok(notice);
            }
            let mut woken = std::pin::pin!(shared.notices.notified());
            woken.as_mut().enable();
            if !self.fill().await? {
                let _ = tokio::time::timeout(POLL, woken).await;
            }
        }
    }
}
