//! A stream that reads an unbounded request, as the dispatcher is told of it.

use std::time::{Duration, Instant};

use hiresmed_protocol::{Event, Happening, ImageIndex, RequestId, SiteId, VERSION};

use super::Api;
use crate::{Error, clock, ledger::Reading};

/// How often a reader says that it is there where it comes no further. One that takes nothing from its stream says nothing, and
/// counts no more after a while.
const BEAT: Duration = Duration::from_secs(5);

/// A reader says how far it has come after this share of the images that are made ahead of it: before it has to wait.
const SHARE: u64 = 4;

/// The record of a reader. Dropped, it is taken away.
pub(super) struct Reader {
    api: Api,
    request: RequestId,
    site: SiteId,
    name: String,
    /// What was said last, and when.
    told: Option<(u64, Instant)>,
}

impl Reader {
    /// A reader that has said nothing.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub(super) fn new(api: Api, request: RequestId, site: SiteId) -> Result<Self, Error> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| Error::Randomness(error.to_string()))?;
        Ok(Self { api, request, site, name: hex::encode(name), told: None })
    }

    /// Says that `next` is the next image to be taken, unless the like was said just now. A reader that is `waiting` for it says
    /// exactly that.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn tell(&mut self, next: u64, waiting: bool) -> Result<(), Error> {
        let step = if waiting { 1 } else { (self.api.supervisor.ahead() / SHARE).max(1) };
        let recent = |(before, when): (u64, Instant)| next.abs_diff(before) < step && when.elapsed() < BEAT;
        if self.told.is_some_and(recent) {
            return Ok(());
        }
        let reading = Reading { version: VERSION, next: ImageIndex(next), at: clock::now() };
        self.api.ledger.tell_reading(&self.request, &self.name, &reading).await?;
        self.told = Some((next, Instant::now()));
        announce(&self.api, &self.request, &self.site, next).await;
        Ok(())
    }
}

/// Tells the dispatcher, and whoever follows the request; where it is lost the dispatcher looks by itself soon.
async fn announce(api: &Api, request: &RequestId, site: &SiteId, next: u64) {
    let happening = Happening::Read { next: ImageIndex(next) };
    let event = Event { version: VERSION, request: request.clone(), site: site.clone(), job: None, happening };
    if let Ok(payload) = serde_json::to_vec(&event) {
        let _ = api.queue.publish_event(&event.topic(), payload.into()).await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let (Some((next, _)), Ok(runtime)) = (self.told, tokio::runtime::Handle::try_current()) else { return };
        let (api, request, site, name) =
            (self.api.clone(), self.request.clone(), self.site.clone(), std::mem::take(&mut self.name));
        runtime.spawn(async move {
            // Where it stays, it is taken to be dead after a while.
            let _ = api.ledger.forget_reading(&request, &name).await;
            announce(&api, &request, &site, next).await;
        });
    }
}
