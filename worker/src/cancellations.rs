//! Which requests are cancelled: told by control messages, and looked up in the store, which alone counts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hiresmed_protocol::{RequestId, event::Control, keys};
use hiresmed_services::{
    queue::{Queue, Subscription},
    store::Store,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often the store is looked at for the requests that are worked for, in case a message was missed.
const LOOK: Duration = Duration::from_secs(1);

/// Tokens of the requests that are worked for. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cancellations {
    store: Arc<dyn Store>,
    tokens: Tokens,
    _listener: Arc<Listener>,
}

type Tokens = Arc<Mutex<BTreeMap<RequestId, CancellationToken>>>;

/// The task that listens; it ends with the last clone.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cancellations {
    /// Starts to listen.
    pub(crate) fn start(queue: Arc<dyn Queue>, store: Arc<dyn Store>) -> Self {
        let tokens = Tokens::default();
        let listener = tokio::spawn(listen(queue, store.clone(), tokens.clone()));
        Self { store, tokens, _listener: Arc::new(Listener(listener)) }
    }

    /// Whether the store says that the request is cancelled. A store that does not answer says no: the job will notice.
    pub(crate) async fn is_cancelled(&self, request: &RequestId) -> bool {
        is_cancelled(&self.store, request).await
    }

    /// A token that is cancelled when the request is.
    pub(crate) fn watch(&self, request: &RequestId) -> CancellationToken {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // A cancelled token stays cancelled; one who asks again after a resumed request gets a new one.
        tokens.retain(|_, token| !token.is_cancelled());
        tokens.entry(request.clone()).or_default().clone()
    }
}

async fn listen(queue: Arc<dyn Queue>, store: Arc<dyn Store>, tokens: Tokens) {
    let mut control = queue.listen().await.ok();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            told = told(&mut control) => match told {
                Some(request) => cancel(&tokens, &request),
                None => control = queue.listen().await.ok(),
            },
            _ = look.tick() => {
                let watched: Vec<_> = tokens.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
                for request in watched {
                    if is_cancelled(&store, &request).await {
                        cancel(&tokens, &request);
                    }
                }
                if control.is_none() {
                    control = queue.listen().await.ok();
                }
            }
        }
    }
}

/// The next request that is cancelled; `None` when the connection is lost. Waits for ever without a connection.
async fn told(control: &mut Option<Box<dyn Subscription>>) -> Option<RequestId> {
    let Some(subscription) = control else { return std::future::pending().await };
    loop {
        let notice = match subscription.next().await {
            Ok(notice) => notice,
            Err(_) => {
                *control = None;
                // The look at the store goes on, and connects again.
                return std::future::pending().await;
            }
        };
        if let Ok(Control::Cancel { request }) = serde_json::from_slice(&notice.payload) {
            return Some(request);
        }
    }
}

fn cancel(tokens: &Tokens, request: &RequestId) {
    if let Some(token) = tokens.lock().unwrap_or_else(PoisonError::into_inner).get(request) {
        token.cancel();
    }
}

async fn is_cancelled(store: &Arc<dyn Store>, request: &RequestId) -> bool {
    matches!(store.head(&keys::cancelled(request)).await, Ok(Some(_)))
}
