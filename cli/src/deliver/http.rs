//! Calls of an archive over HTTP/1.1: by TLS with the system's authorities and further ones, with a bound on how long nothing
//! may happen and on the length of an answer.
//!
//! hyper rather than a client that writes a request before it reads: an archive that refuses a large body answers in the middle of it.
//! A redirect is not followed, and no proxy is asked: credentials go where `--to` says.

use std::{
    error::Error,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::failure;

/// How long an archive may take until its TCP connection stands.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest answer that is read: a response for each of many thousand instances.
const ANSWER_BYTES: usize = 64 << 20;
const DICOM_JSON: &str = "application/dicom+json";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A client of one archive.
pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    authorization: Option<HeaderValue>,
    silence: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// How long the archive asks to be left alone (RFC 9110 10.2.3).
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection was made.
    #[error("the archive cannot be reached ({0})")]
    Connect(String),
    /// The connection ended or was silent.
    #[error("the connection broke ({0})")]
    Transfer(String),
    /// The archive is not who it should be, which time does not mend.
    #[error(
        "the archive's certificate is not trusted ({0}); where an authority of your own has signed it, name its file with --ca"
    )]
    Certificate(String),
}

impl Http {
    /// A client that trusts the system's authorities, and those in the PEM file `authorities`.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn new(authorities: Option<&Path>, authorization: Option<HeaderValue>, silence: Duration) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // A machine without a store of its own may still have the file.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = authorities {
            let wrong = || format!("--ca {} is no file of certificates in PEM", path.display());
            let read: Result<Vec<_>, _> =
                CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
            let read = read.with_context(wrong).map_err(failure::refused)?;
            if read.is_empty() {
                return Err(failure::refused(anyhow!(wrong())));
            }
            for certificate in read {
                roots.add(certificate).with_context(wrong).map_err(failure::refused)?;
            }
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        // A connection that waits for the next batch is often closed by then, which would look like a failure of that.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, authorization, silence })
    }

    /// Fetches DICOM JSON.
    pub async fn get(&self, address: &str) -> Result<Answer, Trouble> {
        let request = Request::get(address).header(header::ACCEPT, DICOM_JSON);
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        self.call(request, body, Arc::new(Pulse::default())).await
    }

    /// Sends a body of known length.
    pub async fn post(
        &self,
        address: &str,
        content_type: &str,
        length: u64,
        body: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Answer, Trouble> {
        let request = Request::post(address)
            .header(header::ACCEPT, DICOM_JSON)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, length);
        let pulse = Arc::new(Pulse::default());
        let beats = pulse.clone();
        let frames = body.map(move |piece| {
            beats.beat();
            piece.map(Frame::data)
        });
        self.call(request, StreamBody::new(frames).boxed_unsync(), pulse).await
    }

    async fn call(&self, request: http::request::Builder, body: Body, pulse: Arc<Pulse>) -> Result<Answer, Trouble> {
        let mut request = request.body(body).map_err(|error| Trouble::Transfer(error.to_string()))?;
        request
            .headers_mut()
            .insert(header::USER_AGENT, HeaderValue::from_static(concat!("hiresmed/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let answer = async {
            let answer = self.client.request(request).await.map_err(|error| trouble(&error))?;
            let (head, mut body) = answer.into_parts();
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| Trouble::Transfer(chain(&error)))?;
                pulse.beat();
                let Ok(data) = frame.into_data() else { continue };
                if bytes.len() + data.len() > ANSWER_BYTES {
                    return Err(Trouble::Transfer(format!("its answer is longer than {} MiB", ANSWER_BYTES >> 20)));
                }
                bytes.extend_from_slice(&data);
            }
            let retry_after =
                head.headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now()));
            Ok(Answer { status: head.status, retry_after, body: bytes.into() })
        };
        tokio::select! {
            answer = answer => answer,
            () = pulse.ends(self.silence) => {
                Err(Trouble::Transfer(format!("nothing happened for {} s", self.silence.as_secs_f64())))
            }
        }
    }
}

/// When something last happened on a connection.
struct Pulse {
    began: Instant,
    last_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Pulse {
    fn beat(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    /// Waits until nothing has happened for `silence`.
    async fn ends(&self, silence: Duration) {
        loop {
            let last = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let left = (last + silence).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

fn trouble(error: &hyper_util::client::legacy::Error) -> Trouble {
    let text = chain(error);
    if is_certificate(error) {
        Trouble::Certificate(text)
    } else if error.is_connect() {
        Trouble::Connect(text)
    } else {
        Trouble::Transfer(text)
    }
}

fn is_certificate(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return true;
        }
        // The source of an I/O error is that of what it wraps, which would be passed over.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// An error with its causes, each once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Seconds, or a date (RFC 9110 10.2.3).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_may_ask_for_rest_in_seconds_or_until_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let after = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap(), now);
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after(&httpdate::fmt_http_date(now + Duration::from_secs(90))), Some(Duration::from_secs(90)));
        assert_eq!(after("Thu, 01 Jan 1970 00:00:00 GMT"), Some(Duration::ZERO));
        for text in ["-1", "soon", ""] {
            assert_eq!(after(text), None);
        }
    }

    #[test]
    fn a_certificate_is_known_as_the_cause_however_deep_it_lies() {
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, untrusted));
        assert!(is_certificate(&wrapped));
        assert!(!is_certificate(&io::Error::other(io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::DecryptError
        ))));
    }

    #[tokio::test]
    async fn silence_ends_and_something_keeps_it_off() {
        let pulse = Pulse::default();
        std::thread::sleep(Duration::from_millis(30));
        pulse.beat();
        pulse.ends(Duration::from_millis(30)).await;
        assert!(pulse.began.elapsed() >= Duration::from_millis(60));
    }
}
