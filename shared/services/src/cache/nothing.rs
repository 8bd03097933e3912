//! No cache at all: every caller goes on as it does while a cache is away.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Cache, Result, Token};

/// Keeps nothing and grants every lock: work may be done twice, which costs time only.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

#[async_trait]
impl Cache for Nothing {
    async fn get(&self, _key: &str) -> Result<Option<Bytes>> {
        Ok(None)
    }

    async fn put(&self, _key: &str, _value: Bytes, _time_to_live: Duration) -> Result<()> {
        Ok(())
    }

    async fn delete(&self, _key: &str) -> Result<()> {
        Ok(())
    }

    async fn try_lock(&self, _name: &str, _time_to_live: Duration) -> Result<Option<Token>> {
        Ok(Some(Token::new(crate::nonce())))
    }

    async fn renew(&self, _name: &str, _token: &Token, _time_to_live: Duration) -> Result<bool> {
        Ok(true)
    }

    async fn unlock(&self, _name: &str, _token: &Token) -> Result<bool> {
        Ok(true)
    }
}
