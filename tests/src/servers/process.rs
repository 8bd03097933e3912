//! A server's process, which does not outlive the one that started it.

use std::{
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a server may take until it answers; it has two cores to share with the compiler.
const READY: Duration = Duration::from_secs(120);

/// Ports are taken from here up to the range that systems give to outgoing connections: nobody else gets one by chance
/// between our looking and the server's binding.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// A running server.
pub struct Process {
    child: Child,
    watchdog: Child,
}

impl Process {
    /// Starts `command`, with its output in the file `log`. When this process ends, however it ends, the server is killed and
    /// the folder `remove` deleted.
    pub fn start(command: &mut Command, log: &Path, remove: Option<&Path>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = std::fs::OpenOptions::new().create(true).append(true).open(log);
        let output = output.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let second = output.try_clone().unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let child = command.stdin(Stdio::null()).stdout(output).stderr(second).process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {name}: {error}; run tests/tools/install"));
        // Reads until our end of the pipe is closed, which the system does for us.
        let watchdog = Command::new("sh")
            .args([
                "-c",
                r#"cat >/dev/null; kill -KILL "-$1" 2>/dev/null; if [ -n "$2" ]; then rm -rf -- "$2"; fi"#,
                "watchdog",
            ])
            .arg(child.id().to_string())
            .arg(remove.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start a shell: {error}"));
        Self { child, watchdog }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        // In this order: the process id may be another's as soon as we have waited for it.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        // The whole group: some servers are the child of a shell script.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` is true.
    pub fn wait_until(&mut self, what: &str, log: &Path, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + READY;
        while !ready() {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                self.kill();
                let state = ended.map_or("does not answer".to_owned(), |status| format!("ended ({status})"));
                panic!("{what} {state}; its output:\n{}", tail(log));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different places.
    let start = (std::process::id().wrapping_mul(61) % u32::from(PORTS)) as u16;
    for _ in 0..PORTS {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (start.wrapping_add(next)) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST_PORT} to {} is free", FIRST_PORT + PORTS);
}

/// Whether somebody listens on the port.
pub fn listens(port: u16) -> bool {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Finds a program: the path that `variable` names, then `places`, then the folders of `PATH`.
pub fn program(name: &str, variable: &str, places: &[PathBuf], install: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).map(|folder| folder.join(name));
    let system = ["/usr/sbin", "/usr/local/sbin"].iter().map(|folder| Path::new(folder).join(name));
    let mut candidates = places.iter().cloned().chain(folders).chain(system);
    candidates.find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("the tests need the program `{name}`: run tests/tools/install, or {install}, or name it by {variable}")
    })
}
