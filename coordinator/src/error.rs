//! Why the coordinator could not do what it was asked.

use hiresmed_protocol::{RequestId, validate::Faults};
use hiresmed_services::{queue, store};

/// Why the coordinator could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request's values are wrong.
    #[error(transparent)]
    Refused(#[from] Faults),
    /// No request has that id.
    #[error("there is no request `{0}`; `hiresmed status` lists them")]
    UnknownRequest(RequestId),
    /// The request waits for models that are trained first: it has no plan yet.
    #[error(
        "request {id} waits until its lesion models are trained by {}; `hiresmed status` shows how far they are",
        .trainings.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    Waiting {
        /// The request.
        id: RequestId,
        /// The training requests.
        trainings: Vec<RequestId>,
    },
    /// The request is over: there is nothing to cancel.
    #[error("request {id} {state}: there is nothing to cancel; `hiresmed status {id}` shows where it stands")]
    Over {
        /// The request.
        id: RequestId,
        /// How it ended, continuing the sentence.
        state: String,
    },
    /// A name stands for no model.
    #[error("`{path}`: there is no {kind} model `{name}`; {known}")]
    UnknownModel {
        /// The request's key.
        path: String,
        /// The kind of model.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// Which names are known, as a sentence.
        known: String,
    },
    /// The start of a digest stands for several models.
    #[error("`{path}`: `{name}` is the start of {count} {kind} models' digests; give more digits")]
    AmbiguousModel {
        /// The request's key.
        path: String,
        /// The kind of model.
        kind: &'static str,
        /// The digits that were given.
        name: String,
        /// How many digests start like this.
        count: usize,
    },
    /// A model is for images of another modality.
    #[error(
        "`{path}`: the {kind} model `{name}` is for `{own}` images, and the request is for `{wanted}`; `hiresmed model list` shows what \
         there is"
    )]
    OtherModality {
        /// The request's key.
        path: String,
        /// The kind of model.
        kind: &'static str,
        /// The name that was given.
        name: String,
        /// What it is for.
        own: String,
        /// What the request is for.
        wanted: &'static str,
    },
    /// Several models are unknown, ambiguous, or for another modality.
    #[error("{} models cannot be used:{}", .0.len(), .0.iter().map(|fault| format!("\n  {fault}")).collect::<String>())]
    Models(Vec<Error>),
    /// A source has no files that could be used.
    #[error(
        "`{path}`: `{source_name}` has no {what} in the store (looked below `{prefix}`); name a folder that has, or `sample`"
    )]
    NoFiles {
        /// The request's key.
        path: String,
        /// The source as the request names it.
        source_name: String,
        /// What was looked for.
        what: &'static str,
        /// Where it was looked for.
        prefix: String,
    },
    /// A document in the store cannot be understood.
    #[error("the document `{key}` cannot be read: {cause}; it was written by another version, or damaged")]
    Document {
        /// Its key.
        key: String,
        /// What is wrong.
        cause: String,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}; a key cannot be made now")]
    Randomness(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

impl Error {
    /// Whether the request itself is to blame, and not the machinery.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::UnknownModel { .. }
                | Self::AmbiguousModel { .. }
                | Self::OtherModality { .. }
                | Self::Models(_)
                | Self::NoFiles { .. }
        )
    }
}
