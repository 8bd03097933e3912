//! Runs a job on an operating system thread of its own, never on those of the async runtime, and sends its events.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use hiresmed_protocol::{Event, Happening, Job, Outcome, VERSION, Verdict};
use tokio::sync::{mpsc, oneshot};
use tracing::{Span, error};

use crate::{
    consumer::Worker,
    jobs::{Context, Failure, Stop},
};

/// Events that wait to be sent; more are dropped.
const EVENTS: usize = 256;

/// Runs `job` to its end. A panic is a permanent failure of the job, not of the worker.
pub(crate) async fn execute(worker: &Worker, job: Job, stop: Stop) -> Verdict {
    let (events, mut heard) = mpsc::channel(EVENTS);
    let (send, ended) = oneshot::channel();
    let context = Context::new(job, stop, events);
    context.report(Happening::Started { worker: worker.name.clone() });
    let (environment, runner, span) = (worker.environment.clone(), worker.runner.clone(), Span::current());
    let thread = std::thread::Builder::new().name("job".to_owned()).spawn(move || {
        let result = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| runner(&environment, &context))));
        // Nobody listens any more only when the whole worker is going down.
        let _ = send.send(result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))));
    });
    if let Err(error) = thread {
        return Verdict::Transient(hiresmed_protocol::outcome::Failure {
            stage: None,
            reason: format!("no thread for the job: {error}"),
        });
    }
    // Ends when the job drops its context.
    while let Some(event) = heard.recv().await {
        send_event(worker, &event).await;
    }
    match ended.await {
        Ok(Ok(success)) => Verdict::Succeeded(success),
        Ok(Err(failure)) => failure.into_verdict(),
        Err(_) => Verdict::Interrupted,
    }
}

/// Tells that the attempt ended.
pub(crate) async fn announce_end(worker: &Worker, job: &Job, outcome: Outcome) {
    let event = Event {
        version: VERSION,
        request: job.request.clone(),
        site: job.site.clone(),
        job: Some(job.id.clone()),
        happening: Happening::Ended { outcome: Box::new(outcome) },
    };
    send_event(worker, &event).await;
}

/// Events inform people: one that cannot be sent is not worth a job.
async fn send_event(worker: &Worker, event: &Event) {
    if let Ok(payload) = serde_json::to_vec(event) {
        let _ = worker.queue.publish_event(&event.topic(), payload.into()).await;
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let message = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = message.unwrap_or("no message");
    error!(message, "job panicked");
    Failure::Permanent {
        stage: None,
        reason: format!("the program has a fault: {message}; please report it with the request"),
    }
}
