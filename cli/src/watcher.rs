//! Shows a request's progress from its events, whichever process works for it.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::Result;
use hiresmed_coordinator::{Ledger, status};
use hiresmed_protocol::{Event, Happening, ImageIndex, RequestId, Verdict};
use hiresmed_services::queue::Queue;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{intake::Names, progress::Progress};

/// The task that shows; ends with [`Shown::end`].
pub struct Shown {
    task: JoinHandle<()>,
    over: CancellationToken,
}

impl Shown {
    /// Shows what has arrived until now, and removes the bar.
    pub async fn end(self) {
        self.over.cancel();
        // A display that failed is not worth an error.
        let _ = self.task.await;
    }
}

/// Begins to show request `id`.
///
/// # Errors
/// There is no such request, or the services fail.
pub async fn watch(ledger: Ledger, queue: Arc<dyn Queue>, names: Names, id: &RequestId) -> Result<Shown> {
    let mut events = queue.subscribe(&Event::topics_of(id)).await?;
    let status = status::of(&ledger, id).await?;
    // This machine has no unbounded requests: whoever submits one here is told where to.
    let total = status.total.unwrap_or_default();
    let mut view = View {
        progress: Progress::begin(status.unit, total, (status.done + status.failed).min(total)),
        settled: settled(&ledger, id).await?,
        names,
    };
    let over = CancellationToken::new();
    let ended = over.clone();
    let task = tokio::spawn(async move {
        loop {
            tokio::select! {
                // What has arrived is shown before the end is.
                biased;
                notice = events.next() => match notice {
                    Ok(notice) => {
                        if let Ok(event) = serde_json::from_slice(&notice.payload) {
                            view.show(event);
                        }
                    }
                    Err(_) => break,
                },
                () = ended.cancelled() => break,
            }
        }
        view.progress.end();
    });
    Ok(Shown { task, over })
}

struct View {
    progress: Progress,
    /// Images that are done or failed: a job that is run again makes some of them a second time.
    settled: BTreeSet<ImageIndex>,
    /// Events do not know what a person calls a file.
    names: Names,
}

impl View {
    fn show(&mut self, event: Event) {
        match event.happening {
            Happening::Progress { stage, .. } => self.progress.stage(stage.as_str()),
            Happening::ImageDone { index } => self.settle(index),
            Happening::ImageFailed { index, stage, reason } => {
                self.note(&format!("image {index} failed ({stage}): {reason}"));
                self.settle(index);
            }
            Happening::TrainingLoss { step, terms, .. } => {
                let terms: Vec<_> = terms.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
                self.progress.stage(&terms.join(" "));
                self.progress.done(step);
            }
            Happening::Ended { outcome } => match outcome.verdict {
                Verdict::Transient(failure) => {
                    self.note(&format!("failed for now, will be tried again: {}", failure.reason));
                }
                Verdict::Succeeded(success) => {
                    if let Some(round) = success.round {
                        self.progress.done(round.step);
                    }
                }
                Verdict::Failed(failure) => {
                    self.note(&format!("job {} failed: {}", outcome.job, failure.reason));
                }
                Verdict::Interrupted | Verdict::Cancelled => {}
            },
            Happening::Planned { .. }
            | Happening::Started { .. }
            | Happening::Stages { .. }
            | Happening::Read { .. }
            | Happening::Completed { .. }
            | Happening::Aborted { .. } => {}
        }
    }

    fn note(&self, text: &str) {
        self.progress.note(&self.names.restore(text));
    }

    fn settle(&mut self, index: ImageIndex) {
        if self.settled.insert(index) {
            self.progress.done(self.settled.len() as u64);
        }
    }
}

async fn settled(ledger: &Ledger, id: &RequestId) -> Result<BTreeSet<ImageIndex>> {
    let mut settled = BTreeSet::new();
    for outcome in ledger.outcomes(id).await?.into_values() {
        if let Verdict::Succeeded(success) = outcome.verdict {
            settled.extend(success.images.iter().map(|image| image.index));
            settled.extend(success.failures.iter().map(|failure| failure.index));
        }
    }
    Ok(settled)
}
