//! What happens to a request, as server-sent events (WHATWG HTML, section 9.2).

use std::{convert::Infallible, time::Duration};

use aide::transform::TransformOperation;
use axum::{
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use hiresmed_protocol::{Event as Told, Happening, RequestId};
use hiresmed_services::queue::Subscription;
use schemars::generate::SchemaSettings;
use tokio::time::Instant;

use super::{Api, caller::Reader, document::body, extract::Path, problem::Problem, requests::RequestPath};
use crate::Error;

/// How often the store is asked whether the request is over: an event may be lost.
const LOOK: Duration = Duration::from_secs(5);

/// How often a comment is sent where nothing happens, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/requests/{id}/events`.
pub async fn get(State(api): State<Api>, caller: Reader, Path(path): Path<RequestPath>) -> Result<Response, Problem> {
    let created_at = api.check_owned(&caller.site, &path.id).await?;
    // Subscribed first, so that nothing is missed between the standing and the first event.
    let subscription = api.queue.subscribe(&Told::topics_of(&path.id)).await.map_err(Error::from)?;
    let status = api.status(&path.id, created_at.clone()).await?;
    let open = status.is_open();
    let first = event("status", &status);
    let next = if open { Next::Listen(Instant::now() + LOOK) } else { Next::End };
    let listener = Listener { api, id: path.id, site: caller.site, created_at, subscription, next };
    let events = stream::once(std::future::ready(Ok(first)));
    let events = futures::StreamExt::chain(events, listener.events());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

enum Next {
    /// Waits for events, and looks at the store at that time.
    Listen(Instant),
    /// Sends where the request stands, then the end if it is over.
    Status,
    /// Sends the end.
    End,
    /// Nothing more.
    Over,
}

struct Listener {
    api: Api,
    id: RequestId,
    site: hiresmed_protocol::SiteId,
    created_at: String,
    subscription: Box<dyn Subscription>,
    next: Next,
}

impl Listener {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut listener| {
            let event = listener.event().await?;
            Some((Ok(event), listener))
        })
    }

    /// The next event to send; none where the stream ends, at the request's end or the coordinator's.
    async fn event(&mut self) -> Option<Event> {
        loop {
            match self.next {
                Next::Listen(look) => {
                    let api = self.api.clone();
                    tokio::select! {
                        () = api.stop.cancelled() => return None,
                        () = tokio::time::sleep_until(look) => self.look().await.ok()?,
                        notice = self.subscription.next() => {
                            // Without a connection to the queue the caller connects again, and gets the standing first.
                            let notice = notice.ok()?;
                            let Ok(told) = serde_json::from_slice::<Told>(&notice.payload) else { continue };
                            if matches!(told.happening, Happening::Completed { .. } | Happening::Aborted { .. }) {
                                self.next = Next::Status;
                            }
                            return Some(event(told.happening.label(), &told));
                        }
                    }
                }
                Next::Status => {
                    let status = self.api.clone().status(&self.id, self.created_at.clone()).await.ok()?;
                    // Open where a failed job was opened again while the others ended.
                    self.next = if status.is_open() { Next::Listen(Instant::now() + LOOK) } else { Next::End };
                    return Some(event("status", &status));
                }
                Next::End => {
                    self.next = Next::Over;
                    return Some(Event::default().event("end").data("{}"));
                }
                Next::Over => return None,
            }
        }
    }

    async fn look(&mut self) -> Result<(), Error> {
        let over = self.api.clone().is_over(&self.site, &self.id).await?;
        self.next = if over { Next::Status } else { Next::Listen(Instant::now() + LOOK) };
        Ok(())
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Event {
    // Plain data with string keys: serialising it into memory has no way to fail.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

/// Documents [`get`].
pub fn describe(operation: TransformOperation<'_>) -> TransformOperation<'_> {
    let mut operation = operation
        .id("follow_request")
        .tag("requests")
        .summary("Follow a request as server-sent events")
        .description(
            "The first event is `status` with a `RequestStatus`: whoever connects again knows where things stand and has \
             missed nothing that counts. Then come `planned`, `started`, `progress`, `image_done`, `image_failed`, \
             `stages`, `training_loss`, `read` (a reader of an unbounded request came so far), `ended` (a job), `completed` and \
             `aborted`, each with data of the schema \
             `x-event-data`. After the \
             request's end come `status` once more and `end`, and the stream closes: do not connect again then. Events \
             may be lost; the status is the truth.",
        );
    let text = schemars::json_schema!({ "type": "string" });
    let mut response = body("text/event-stream", "Events, one a block, their data in JSON.", text);
    // No part of the body's own schema: a stream of blocks is text. Whole, so that it can be taken out as it stands.
    let whole = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let event = whole.into_generator().into_root_schema_for::<Told>();
    response.extensions.insert("x-event-data".to_owned(), event.to_value());
    let responses = operation.inner_mut().responses.get_or_insert_default();
    let response = aide::openapi::ReferenceOr::Item(response);
    responses.responses.insert(aide::openapi::StatusCode::Code(200), response);
    operation
}
