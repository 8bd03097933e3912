//! What the SDK says, in the store's terms.

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
};

use super::Shared;
use crate::store::Error;

/// What was tried: a refusal means different things.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    Read,
    Write,
    List,
}

/// The status of the server's answer, where there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

impl Shared {
    /// The store's error for the SDK's.
    pub(super) fn failed<E>(&self, doing: Doing, key: &str, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (key, endpoint) = (key.to_owned(), self.endpoint.clone());
        let code = error.code().unwrap_or_default().to_owned();
        match (status(&error), code.as_str()) {
            (_, "NoSuchBucket") => {
                let cause = format!("there is no bucket `{}`; create it or name another", self.bucket);
                Error::Backend { key, endpoint, cause }
            }
            (Some(404), _) if doing != Doing::List => Error::NotFound(key),
            (Some(507), _) | (_, "XMinioStorageFull" | "QuotaExceeded") => Error::Full { key, endpoint },
            (Some(401 | 403), _) if doing == Doing::Write => {
                Error::Denied { key, endpoint, cause: cause(&code, &error) }
            }
            _ => Error::Backend { key, endpoint, cause: cause(&code, &error) },
        }
    }

    pub(super) fn backend(&self, key: &str, cause: String) -> Error {
        Error::Backend { key: key.to_owned(), endpoint: self.endpoint.clone(), cause }
    }
}

/// A short text: the server's own words, or the whole chain where it said nothing.
fn cause<E>(code: &str, error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match (code, error.message(), status(error)) {
        ("", _, Some(status)) => format!("the server answered {status}"),
        ("", _, None) => {
            let text = DisplayErrorContext(error).to_string();
            // The debug view of the error follows.
            text.split(" (").next().unwrap_or(&text).to_owned()
        }
        (code, message, _) => format!("{code}: {}", message.unwrap_or("no further word")),
    }
}
