//! An archive that misbehaves as it is told: STOW-RS and QIDO-RS over a map in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Path as Parameter, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use serde_json::{Value, json};

/// What the archive does with a store, before it behaves again.
#[derive(Debug, Clone)]
pub enum Reaction {
    /// Stores nothing and answers this, with `Retry-After` where it is given.
    Status(u16, Option<&'static str>),
    /// Stores, and breaks off in the middle of its answer.
    Truncated,
    /// Stores, and answers 200 with this.
    Body(&'static str),
    /// Stores nothing and says nothing.
    Silence,
}

/// A store that came.
#[derive(Debug, Clone)]
pub struct Store {
    pub at: Instant,
    pub parts: usize,
    pub bytes: usize,
    pub authorization: Option<String>,
}

/// What the archive has and how it behaves.
#[derive(Debug, Default)]
pub struct Behaviour {
    pub script: VecDeque<Reaction>,
    /// What every store meets after the script.
    pub always: Option<Reaction>,
    /// Larger bodies get 413.
    pub limit_bytes: Option<usize>,
    /// Answers 400 to a store with this instance, whatever else is in it.
    pub poison: Option<String>,
    /// Failure reasons by instance: 409 where all fail, otherwise 202.
    pub failures: BTreeMap<String, u16>,
    /// Warning reasons by instance.
    pub warnings: BTreeMap<String, u16>,
    /// So many searches find nothing.
    pub blind_searches: usize,
    /// Most instances on a page.
    pub page: usize,
    /// Studies by instance.
    pub instances: BTreeMap<String, String>,
    pub stores: Vec<Store>,
    pub searches: usize,
}

type Shared = Arc<Mutex<Behaviour>>;

/// An archive that runs until it is dropped.
pub struct Archive {
    address: SocketAddr,
    scheme: &'static str,
    behaviour: Shared,
    handle: Handle<SocketAddr>,
    _runtime: tokio::runtime::Runtime,
}

impl Archive {
    pub fn start(behaviour: Behaviour) -> Self {
        Self::serve(behaviour, None)
    }

    /// With a certificate and its key, in PEM files.
    pub fn start_tls(behaviour: Behaviour, certificate: &Path, key: &Path) -> Self {
        Self::serve(behaviour, Some((certificate, key)))
    }

    fn serve(behaviour: Behaviour, tls: Option<(&Path, &Path)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let behaviour: Shared = Arc::new(Mutex::new(behaviour));
        let service = Router::new()
            .route("/dicom-web/studies", post(store))
            .route("/dicom-web/studies/{study}/instances", get(search))
            .layer(DefaultBodyLimit::disable())
            .with_state(behaviour.clone())
            .into_make_service();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Handle::new();
        // The listener is registered with it.
        let entered = runtime.enter();
        match tls {
            None => {
                let server = axum_server::from_tcp(listener).unwrap().handle(handle.clone());
                runtime.spawn(server.serve(service));
            }
            Some((certificate, key)) => {
                let _ = rustls::crypto::ring::default_provider().install_default();
                let tls = runtime.block_on(RustlsConfig::from_pem_file(certificate, key)).unwrap();
                let server = axum_server::from_tcp_rustls(listener, tls).unwrap().handle(handle.clone());
                runtime.spawn(server.serve(service));
            }
        }
        drop(entered);
        Self { address, scheme: if tls.is_some() { "https" } else { "http" }, behaviour, handle, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("{}://{}/dicom-web", self.scheme, self.address)
    }

    pub fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour.lock().unwrap()
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

/// The UID that an Explicit VR Little Endian file has for a tag of (group, element) below 256.
fn uid(file: &[u8], group: u8, element: u8) -> String {
    let head = [group, 0, element, 0, b'U', b'I'];
    let at = file[132..].windows(6).position(|window| window == head).unwrap() + 132;
    let length = usize::from(file[at + 6]);
    String::from_utf8(file[at + 8..at + 8 + length].to_vec()).unwrap().trim_end_matches('\0').to_owned()
}

/// The parts of a body: what RFC 2046 5.1.1 says, and nothing looser.
fn parts<'a>(content_type: &str, body: &'a [u8]) -> Vec<&'a [u8]> {
    assert!(content_type.starts_with("multipart/related; type=\"application/dicom\"; boundary="), "{content_type}");
    let boundary = content_type.rsplit('=').next().unwrap();
    let mut found = Vec::new();
    let mut rest = body.strip_prefix(format!("--{boundary}\r\n").as_bytes()).unwrap();
    let delimiter = format!("\r\n--{boundary}");
    loop {
        let at = rest.windows(delimiter.len()).position(|window| window == delimiter.as_bytes()).unwrap();
        found.push(rest[..at].strip_prefix(b"Content-Type: application/dicom\r\n\r\n").unwrap());
        rest = &rest[at + delimiter.len()..];
        if rest == b"--\r\n" {
            return found;
        }
        rest = rest.strip_prefix(b"\r\n").unwrap();
    }
}

async fn store(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    match react(&shared, &headers, &body) {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

/// The answer, if there is one.
fn react(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Option<Response> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(text(header::ACCEPT).as_deref(), Some("application/dicom+json"));
    let content_type = text(header::CONTENT_TYPE).unwrap();
    let came = parts(&content_type, body);
    let mut archive = shared.lock().unwrap();
    archive.stores.push(Store {
        at: Instant::now(),
        parts: came.len(),
        bytes: body.len(),
        authorization: text(header::AUTHORIZATION),
    });
    let came: Vec<(String, String)> = came.iter().map(|part| (uid(part, 8, 0x18), uid(part, 0x20, 0x0D))).collect();
    let reaction = archive.script.pop_front().or_else(|| archive.always.clone());
    if let Some(Reaction::Status(status, retry_after)) = reaction {
        let status = StatusCode::from_u16(status).unwrap();
        return Some(match retry_after {
            Some(after) => (status, [(header::RETRY_AFTER, after)]).into_response(),
            None => status.into_response(),
        });
    }
    if matches!(reaction, Some(Reaction::Silence)) {
        return None;
    }
    if archive.limit_bytes.is_some_and(|limit| body.len() > limit) {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "<html>too large</html>").into_response());
    }
    if came.iter().any(|(instance, _)| archive.poison.as_ref() == Some(instance)) {
        return Some((StatusCode::BAD_REQUEST, "<html>bad</html>").into_response());
    }
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    for (instance, study) in came {
        let mut item = json!({ "00081155": { "vr": "UI", "Value": [instance] } });
        if let Some(reason) = archive.failures.get(&instance) {
            item["00081197"] = json!({ "vr": "US", "Value": [reason] });
            failed.push(item);
            continue;
        }
        if let Some(reason) = archive.warnings.get(&instance) {
            item["00081196"] = json!({ "vr": "US", "Value": [reason] });
        }
        stored.push(item);
        archive.instances.insert(instance, study);
    }
    let status = match (stored.is_empty(), failed.is_empty()) {
        (_, true) => StatusCode::OK,
        (true, _) => StatusCode::CONFLICT,
        _ => StatusCode::ACCEPTED,
    };
    let answer = json!({ "00081199": { "vr": "SQ", "Value": stored }, "00081198": { "vr": "SQ", "Value": failed } });
    let json = [(header::CONTENT_TYPE, "application/dicom+json")];
    Some(match reaction {
        Some(Reaction::Truncated) => {
            let half = Bytes::from(answer.to_string().split_at(20).0.to_owned());
            let pieces = [Ok(half), Err(std::io::Error::other("broken off"))];
            (status, json, Body::from_stream(futures::stream::iter(pieces))).into_response()
        }
        Some(Reaction::Body(text)) => (status, json, text).into_response(),
        _ => (status, json, answer.to_string()).into_response(),
    })
}

async fn search(
    State(shared): State<Shared>,
    Parameter(study): Parameter<String>,
    Query(query): Query<BTreeMap<String, usize>>,
) -> Response {
    let mut archive = shared.lock().unwrap();
    archive.searches += 1;
    if archive.searches <= archive.blind_searches {
        return StatusCode::NO_CONTENT.into_response();
    }
    let page = query["limit"].min(if archive.page == 0 { usize::MAX } else { archive.page });
    let found = archive.instances.iter().filter(|(_, of)| **of == study).skip(query["offset"]).take(page);
    let found: Vec<Value> =
        found.map(|(instance, _)| json!({ "00080018": { "vr": "UI", "Value": [instance] } })).collect();
    ([(header::CONTENT_TYPE, "application/dicom+json")], Value::from(found).to_string()).into_response()
}

/// Stands before an archive and answers 413 to a body that is announced as larger than `limit_bytes`, without reading it, as a proxy
/// may. It runs until the test ends.
pub fn gate(archive: &Archive, limit_bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, upstream) = (listener.local_addr().unwrap(), archive.address);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || pass(client, upstream, limit_bytes));
        }
    });
    format!("http://{address}/dicom-web")
}

fn pass(mut client: TcpStream, upstream: SocketAddr, limit_bytes: usize) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > limit_bytes) {
        client.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
        // Until the client has understood: what it still sends stays in the buffers, and its body does not fit in there.
        client.shutdown(Shutdown::Write).ok()?;
        std::thread::sleep(Duration::from_millis(500));
        return Some(());
    }
    let mut server = TcpStream::connect(upstream).ok()?;
    server.write_all(&head).ok()?;
    let (mut answers, mut back) = (server.try_clone().ok()?, client.try_clone().ok()?);
    let answering = std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut client, &mut server);
    let _ = server.shutdown(Shutdown::Write);
    answering.join().ok()
}
