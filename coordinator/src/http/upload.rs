//! Content that a site uploads: bounded, counted and verified on its way into the store.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use futures::{StreamExt, stream};
use hiresmed_protocol::Digest;
use hiresmed_services::store::{self, ByteStream};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// What an upload must hold to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The digest that the content must have.
    pub sha256: Digest,
    /// At most so many bytes: by the limit on uploads.
    pub limit_bytes: u64,
    /// At most so many bytes: what the site's quota has room for.
    pub room_bytes: u64,
    /// Longest time without a byte.
    pub idle: Duration,
}

/// Why an upload was refused, known once its stream has failed.
#[derive(Clone, Default)]
pub struct Refusal(Arc<Mutex<Option<Problem>>>);

impl Refusal {
    fn refuse(&self, problem: Problem) -> io::Error {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        io::Error::other("refused")
    }

    /// The problem of a put that failed: the refusal, where the content was to blame.
    pub fn problem(self, error: store::Error) -> Problem {
        let refusal = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        refusal.unwrap_or_else(|| error.into())
    }
}

struct Incoming {
    content: axum::body::BodyDataStream,
    bounds: Bounds,
    hash: Sha256,
    received: u64,
    refusal: Refusal,
}

/// The content of `body`, which fails at its end where it does not hold to `bounds`; what fails is not stored.
pub fn verified(body: Body, bounds: Bounds) -> (ByteStream, Refusal) {
    let refusal = Refusal::default();
    let content = body.into_data_stream();
    let incoming = Incoming { content, bounds, hash: Sha256::new(), received: 0, refusal: refusal.clone() };
    let pieces =
        stream::try_unfold(incoming, async |mut incoming| Ok(incoming.piece().await?.map(|piece| (piece, incoming))));
    (pieces.boxed(), refusal)
}

impl Incoming {
    async fn piece(&mut self) -> io::Result<Option<Bytes>> {
        let Bounds { sha256, limit_bytes, room_bytes, idle } = self.bounds;
        let Ok(next) = tokio::time::timeout(idle, self.content.next()).await else {
            let text = format!("no byte for {} s; send it again", idle.as_secs());
            return Err(self.refusal.refuse(Problem::new(StatusCode::REQUEST_TIMEOUT, text)));
        };
        let Some(piece) = next else {
            let found = Digest::from_bytes(self.hash.clone().finalize().into());
            if found == sha256 {
                return Ok(None);
            }
            let text = format!("the content's SHA-256 is {found}, not {sha256} as the path says; nothing was stored");
            return Err(self.refusal.refuse(Problem::faults(text, Vec::new())));
        };
        let piece = piece
            .map_err(|error| self.refusal.refuse(Problem::unreadable(format!("the content broke off: {error}"))))?;
        self.received += piece.len() as u64;
        if self.received > limit_bytes {
            let text = format!("the content is longer than {limit_bytes} bytes; send smaller files");
            return Err(self.refusal.refuse(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)));
        }
        if self.received > room_bytes {
            let text = format!("the quota of stored bytes has room for {room_bytes} more; ask an operator");
            return Err(self.refusal.refuse(Problem::quota(text, 3600)));
        }
        self.hash.update(&piece);
        Ok(Some(piece))
    }
}
