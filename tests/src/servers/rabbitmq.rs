//! A private RabbitMQ with its own Erlang port mapper.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hiresmed_services::settings;

use super::process::{Process, free_port, listens, program};

/// A RabbitMQ broker.
pub struct Rabbitmq {
    host: String,
    port: u16,
    management: String,
    user: String,
    password: String,
    private: Option<Private>,
}

/// What only a private one has.
struct Private {
    folder: tempfile::TempDir,
    mapper_port: u16,
    distribution_port: u16,
    /// Ended after the broker.
    _mapper: Process,
    broker: Mutex<Option<Process>>,
}

impl Rabbitmq {
    /// The one for all tests of this binary.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Rabbitmq> = LazyLock::new(|| match std::env::var("HIRESMED_TEST_AMQP") {
            Ok(address) => Rabbitmq::named(&address),
            Err(_) => Rabbitmq::start(),
        });
        &SHARED
    }

    fn named(address: &str) -> Self {
        let form = "HIRESMED_TEST_AMQP is `user:password@host:port`";
        let (login, place) = address.rsplit_once('@').expect(form);
        let (user, password) = login.split_once(':').expect(form);
        let (host, port) = place.rsplit_once(':').expect(form);
        let management = std::env::var("HIRESMED_TEST_AMQP_MANAGEMENT").expect(
            "beside HIRESMED_TEST_AMQP set HIRESMED_TEST_AMQP_MANAGEMENT to `host:port` of its management interface",
        );
        Self {
            host: host.to_owned(),
            port: port.parse().expect(form),
            management,
            user: user.to_owned(),
            password: password.to_owned(),
            private: None,
        }
    }

    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("hiresmed-rabbitmq-").tempdir().expect("a temporary folder");
        let (port, management_port) = (free_port(), free_port());
        let (mapper_port, distribution_port) = (free_port(), free_port());
        let configuration = format!(
            "listeners.tcp.default = 127.0.0.1:{port}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management_port}\n\
             disk_free_limit.absolute = 50MB\n\
             vm_memory_high_watermark.absolute = 1GB\n\
             log.file.level = warning\n"
        );
        write(&folder.path().join("rabbitmq.conf"), &configuration);
        write(&folder.path().join("plugins"), "[rabbitmq_management].");
        let epmd =
            program("epmd", "HIRESMED_TEST_EPMD", &[], "install Erlang (Debian: apt-get install rabbitmq-server)");
        let mut mapper = Process::start(
            Command::new(epmd).args(["-address", "127.0.0.1", "-port", &mapper_port.to_string()]),
            &folder.path().join("epmd.log"),
            None,
        );
        mapper.wait_until("epmd", &folder.path().join("epmd.log"), || listens(mapper_port));
        let private = Private { folder, mapper_port, distribution_port, _mapper: mapper, broker: Mutex::new(None) };
        let (user, password) = ("guest".to_owned(), "guest".to_owned());
        let management = format!("127.0.0.1:{management_port}");
        let broker = Self { host: "127.0.0.1".to_owned(), port, management, user, password, private: Some(private) };
        broker.restart();
        broker
    }

    fn private(&self) -> &Private {
        self.private.as_ref().expect("only a private broker is killed: this test starts its own")
    }

    /// kill -9.
    pub fn kill(&self) {
        *self.private().broker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again after [`Rabbitmq::kill`], on the same port, and waits until it is ready.
    pub fn restart(&self) {
        let private = self.private();
        let folder = private.folder.path();
        let log = folder.join("output.log");
        let mut broker = Process::start(&mut private.command(self.port), &log, Some(folder));
        broker.wait_until("RabbitMQ", &log, || listens(self.port) && self.manage("GET", "/api/vhosts").is_some());
        *private.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }

    /// Deletes everything that a killed one kept: it comes back empty, without the virtual hosts.
    pub fn delete_data(&self) {
        let data = self.private().folder.path().join("data");
        std::fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("cannot delete {}: {error}", data.display()));
    }

    /// Settings for a virtual host of its own, empty.
    pub fn fresh(&self) -> settings::Queue {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        self.make_virtual_host(&name);
        self.settings(&name)
    }

    /// Makes the virtual host anew, after its data were deleted.
    pub fn make_virtual_host(&self, name: &str) {
        let made = self.manage("PUT", &format!("/api/vhosts/{name}"));
        assert!(made.is_some(), "the management interface at {} makes no virtual host", self.management);
    }

    /// Settings for a virtual host.
    pub fn settings(&self, virtual_host: &str) -> settings::Queue {
        settings::Queue {
            endpoint: format!("amqp://{}:{}/{virtual_host}", self.host, self.port),
            user: self.user.clone(),
            password: Some(self.password.clone().into()),
            password_file: None,
        }
    }

    /// `host:port`, for a proxy.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The body of the management interface's answer, where it is a success.
    pub fn manage(&self, method: &str, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.management).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let login = BASE64_STANDARD.encode(format!("{}:{}", self.user, self.password));
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: Basic {login}\r\nContent-Length: 0\r\n\r\n",
            self.management
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let success = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        success.then(|| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))?
    }
}

impl Private {
    fn command(&self, port: u16) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(server());
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("hiresmed{port}@localhost"))
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.mapper_port.to_string())
            .current_dir(folder);
        command
    }
}

/// The server's own script. Debian's wrapper in the path would change the user and insist on the system's folders.
fn server() -> PathBuf {
    let mut places = Vec::new();
    for root in ["/usr/lib/rabbitmq/lib", "/opt/rabbitmq", "/usr/local/lib/rabbitmq/lib"] {
        let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
        places.extend(folders.map(|folder| folder.path().join("sbin/rabbitmq-server")));
        places.push(Path::new(root).join("sbin/rabbitmq-server"));
    }
    program(
        "rabbitmq-server",
        "HIRESMED_TEST_RABBITMQ",
        &places,
        "install RabbitMQ (Debian: apt-get install rabbitmq-server)",
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
