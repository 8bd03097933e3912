//! A private Redis.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use hiresmed_services::settings;

use super::process::{Process, free_port, listens, program};

/// A Redis server.
pub struct Redis {
    address: String,
    port: u16,
    databases: u16,
    next: AtomicU16,
    private: Option<(tempfile::TempDir, Mutex<Option<Process>>)>,
}

impl Redis {
    /// The one for all tests of this binary.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Redis> = LazyLock::new(|| match std::env::var("HIRESMED_TEST_REDIS") {
            Ok(address) => {
                let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
                let port = port.expect("HIRESMED_TEST_REDIS is `host:port`");
                Redis { address, port, databases: 16, next: AtomicU16::new(0), private: None }
            }
            Err(_) => Redis::start(),
        });
        &SHARED
    }

    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("hiresmed-redis-").tempdir().expect("a temporary folder");
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let private = Some((folder, Mutex::new(None)));
        let server = Self { address, port, databases: 256, next: AtomicU16::new(0), private };
        server.restart();
        server
    }

    fn private(&self) -> &(tempfile::TempDir, Mutex<Option<Process>>) {
        self.private.as_ref().expect("only a private server is killed: this test starts its own")
    }

    /// kill -9. It kept everything in memory.
    pub fn kill(&self) {
        *self.private().1.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again after [`Redis::kill`], on the same port, empty.
    pub fn restart(&self) {
        let (folder, running) = self.private();
        let log = folder.path().join("output.log");
        let install = "install Redis (Debian: apt-get install redis-server)";
        let mut command = Command::new(program("redis-server", "HIRESMED_TEST_REDIS_SERVER", &[], install));
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--databases", &self.databases.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(folder.path())
            .current_dir(folder.path());
        let mut process = Process::start(&mut command, &log, Some(folder.path()));
        process.wait_until("Redis", &log, || listens(self.port));
        *running.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Sends a command in Redis' inline form and gives the answer's first line.
    pub fn command(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("Redis listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.write_all(format!("{text}\r\nQUIT\r\n").as_bytes()).expect("Redis reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("Redis answers");
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// Forgets everything.
    pub fn flush(&self) {
        assert_eq!(self.command("FLUSHALL"), "+OK");
    }

    /// Settings for a database of its own, empty.
    pub fn fresh(&self) -> settings::Cache {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.databases;
        let mut stream = TcpStream::connect(&self.address).expect("Redis listens");
        stream.write_all(format!("SELECT {number}\r\nFLUSHDB\r\nQUIT\r\n").as_bytes()).expect("Redis reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("Redis answers");
        assert!(answer.starts_with("+OK\r\n+OK"), "{answer}");
        self.settings(number)
    }

    /// Settings for a database.
    pub fn settings(&self, database: u16) -> settings::Cache {
        settings::Cache { endpoint: format!("redis://{}/{database}", self.address), ..settings::Cache::default() }
    }

    /// `host:port`, for a proxy.
    pub fn address(&self) -> &str {
        &self.address
    }
}
