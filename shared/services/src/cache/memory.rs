//! A cache in the process's own memory, bounded.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::{Cache, Result, Token};

/// A cache in memory. Clones share it. When it is full, the values that were used least recently go first.
#[derive(Clone)]
pub struct Memory {
    content: Arc<Mutex<Content>>,
}

struct Content {
    most_bytes: usize,
    used_bytes: usize,
    values: HashMap<String, Value>,
    /// Keys by the time of their last use.
    order: BTreeMap<u64, String>,
    clock: u64,
    locks: HashMap<String, (Token, Instant)>,
}

struct Value {
    bytes: Bytes,
    expires: Instant,
    used: u64,
}

impl Memory {
    /// A cache whose keys and values together have at most `most_bytes` bytes.
    pub fn new(most_bytes: usize) -> Self {
        let content = Content {
            most_bytes,
            used_bytes: 0,
            values: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            locks: HashMap::new(),
        };
        Self { content: Arc::new(Mutex::new(content)) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Nothing below panics halfway through a change.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn remove(&mut self, key: &str) {
        if let Some(value) = self.values.remove(key) {
            self.used_bytes -= key.len() + value.bytes.len();
            self.order.remove(&value.used);
        }
    }

    fn get(&mut self, key: &str) -> Option<Bytes> {
        if self.values.get(key)?.expires <= Instant::now() {
            self.remove(key);
            return None;
        }
        self.clock += 1;
        let value = self.values.get_mut(key)?;
        self.order.remove(&value.used);
        value.used = self.clock;
        self.order.insert(self.clock, key.to_owned());
        Some(value.bytes.clone())
    }

    fn put(&mut self, key: &str, bytes: Bytes, expires: Instant) {
        self.remove(key);
        let size = key.len() + bytes.len();
        if size > self.most_bytes {
            return;
        }
        while self.used_bytes + size > self.most_bytes {
            let Some(oldest) = self.order.values().next().cloned() else { break };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.used_bytes += size;
        self.order.insert(self.clock, key.to_owned());
        self.values.insert(key.to_owned(), Value { bytes, expires, used: self.clock });
    }

    fn holds(&self, name: &str, token: &Token) -> bool {
        self.locks.get(name).is_some_and(|(holder, expires)| holder == token && *expires > Instant::now())
    }
}

#[async_trait]
impl Cache for Memory {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.content().get(key))
    }

    async fn put(&self, key: &str, value: Bytes, time_to_live: Duration) -> Result<()> {
        self.content().put(key, value, Instant::now() + time_to_live);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.content().remove(key);
        Ok(())
    }

    async fn try_lock(&self, name: &str, time_to_live: Duration) -> Result<Option<Token>> {
        let mut content = self.content();
        let now = Instant::now();
        if content.locks.get(name).is_some_and(|(_, expires)| *expires > now) {
            return Ok(None);
        }
        content.locks.retain(|_, (_, expires)| *expires > now);
        let token = Token::new(crate::nonce());
        content.locks.insert(name.to_owned(), (token.clone(), now + time_to_live));
        Ok(Some(token))
    }

    async fn renew(&self, name: &str, token: &Token, time_to_live: Duration) -> Result<bool> {
        let mut content = self.content();
        let held = content.holds(name, token);
        if held {
            content.locks.insert(name.to_owned(), (token.clone(), Instant::now() + time_to_live));
        }
        Ok(held)
    }

    async fn unlock(&self, name: &str, token: &Token) -> Result<bool> {
        let mut content = self.content();
        let held = content.holds(name, token);
        if held {
            content.locks.remove(name);
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests;
