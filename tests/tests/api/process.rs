//! The coordinator as a process of its own, and calls to it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use ureq::{
    Agent,
    http::{Method, Request, Response},
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};

/// The program: built beside the tests, or named by `HIRESMED_COORDINATOR_BINARY`.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HIRESMED_COORDINATOR_BINARY") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let path = test.ancestors().nth(2).unwrap().join("hiresmed-coordinator");
    assert!(path.is_file(), "{} is not there: `cargo build -p hiresmed-coordinator` builds it", path.display());
    path
}

/// The Python of `tests/tools/install`, with the packages of `tests/tools/requirements.txt`.
pub fn python() -> PathBuf {
    let named = std::env::var_os("HIRESMED_TEST_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runtimes/test-python/bin/python"))
}

/// A script beside the tests.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api").join(name)
}

/// A running coordinator; killed when dropped.
pub struct Coordinator {
    child: Child,
    pub url: String,
    agent: Agent,
    folder: PathBuf,
}

/// What a call gave.
pub struct Answer {
    pub status: u16,
    pub head: Response<()>,
    pub bytes: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| panic!("{error}: {:?}", self.bytes))
    }

    /// Asserts the status and gives the body.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env("HIRESMED_STORE", format!("directory:{}", folder.join("store").display()))
        .env("HIRESMED_QUEUE", format!("sqlite:{}", folder.join("queue.sqlite").display()));
    command
}

/// A site with a key, made as the first one of a fleet is.
pub fn key(folder: &Path, site: &str, roles: &[&str]) -> String {
    assert!(command(folder, &["site", "create", site]).status().unwrap().success());
    let mut arguments = vec!["site", "create-key", site];
    arguments.extend(roles.iter().flat_map(|role| ["--role", role]));
    let output = command(folder, &arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs a command that is no server, and gives its exit code and standard error.
pub fn say(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(folder, arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Certificates by which both sides know each other.
pub struct Identity {
    pub authority: Vec<u8>,
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Coordinator {
    /// Starts one on the services in `folder`, at a port of the system's choice.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[], None)
    }

    /// As [`Coordinator::start`], with TLS.
    pub fn start_with(folder: &Path, arguments: &[&str], identity: Option<Identity>) -> Self {
        let all = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut child = command(folder, &all).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the coordinator ended at its start").unwrap();
            let Ok(line) = serde_json::from_str::<Value>(&line) else { panic!("{line}") };
            if line["message"] == "listening" {
                break line["address"].as_str().unwrap().to_owned();
            }
        };
        // A pipe that nobody reads would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        Self { child, url, agent: agent(identity), folder: folder.to_owned() }
    }

    pub fn call(&self, key: &str, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_call(key, method, path, headers, body).unwrap()
    }

    pub fn try_call(
        &self,
        key: &str,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        request = request.header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, mut body) = self.agent.run(request.body(body.to_vec()).unwrap())?.into_parts();
        let bytes = body.read_to_vec()?;
        Ok(Answer { status: parts.status.as_u16(), head: Response::from_parts(parts, ()), bytes })
    }

    pub fn get(&self, key: &str, path: &str) -> Answer {
        self.call(key, Method::GET, path, &[], &[])
    }

    pub fn post(&self, key: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.call(key, Method::POST, path, &headers, body.to_string().as_bytes())
    }

    /// The lines of a stream, as they come.
    pub fn lines(&self, key: &str, path: &str) -> impl Iterator<Item = String> + use<> {
        let request = Request::builder().uri(format!("{}{path}", self.url));
        let request = request.header("authorization", format!("Bearer {key}"));
        let body = self.agent.run(request.body(()).unwrap()).unwrap().into_body();
        BufReader::new(body.into_reader()).lines().map(Result::unwrap)
    }

    /// The description, in a file.
    pub fn document(&self) -> PathBuf {
        let path = self.folder.join("openapi.json");
        std::fs::write(&path, self.get("", "/v1/openapi.json").bytes).unwrap();
        path
    }

    /// Asks it to stop and gives its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn agent(identity: Option<Identity>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)))
        .max_redirects(0);
    let Some(Identity { authority, client }) = identity else { return config.build().into() };
    let client = client.map(|(certificate, key)| {
        let chain = vec![Certificate::from_pem(&certificate).unwrap()];
        ClientCert::new_with_certs(&chain, PrivateKey::from_pem(&key).unwrap())
    });
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&authority).unwrap()]);
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    config.tls_config(tls.build()).build().into()
}
