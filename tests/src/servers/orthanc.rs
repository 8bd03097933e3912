//! A private Orthanc with its DICOMweb plug-in, in a network namespace of its own.
//!
//! Orthanc 1.10 listens on every address of the machine, whatever its configuration says. In a namespace that has nothing but a
//! loopback interface nobody else reaches it; what is to call it runs in there too ([`Orthanc::command`]).

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::process::{Process, program};

/// In a namespace of its own any port is free.
const PORT: u16 = 8042;
const USER: &str = "test";
const PASSWORD: &str = "test-password";

/// An Orthanc server.
pub struct Orthanc {
    running: Mutex<Option<Process>>,
    /// Holds the namespace while the server is dead. Ended after it.
    namespace: Process,
    /// Deleted last.
    folder: tempfile::TempDir,
}

impl Orthanc {
    /// Starts one.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("hiresmed-orthanc-").tempdir().expect("a temporary folder");
        // The server writes its account's password there.
        let configuration = format!(
            r#"{{"Name": "hiresmed-test", "StorageDirectory": "{0}", "IndexDirectory": "{0}", "HttpPort": {PORT},
                "DicomServerEnabled": false, "RemoteAccessAllowed": false, "AuthenticationEnabled": true,
                "RegisteredUsers": {{"{USER}": "{PASSWORD}"}}, "Plugins": ["{1}"],
                "DicomWeb": {{"Enable": true, "Root": "/dicom-web/"}}}}"#,
            folder.path().join("data").display(),
            plugin().display()
        );
        std::fs::write(folder.path().join("orthanc.json"), configuration).expect("the temporary folder can be written");
        let namespace = namespace(folder.path());
        let server = Self { running: Mutex::new(None), namespace, folder };
        server.restart();
        server
    }

    /// kill -9.
    pub fn kill(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Starts it again after [`Orthanc::kill`], with the same data, and waits until it is ready.
    pub fn restart(&self) {
        let log = self.folder.path().join("output.log");
        let install = "install it (Debian: apt-get install orthanc orthanc-dicomweb)";
        let server = program("Orthanc", "HIRESMED_TEST_ORTHANC", &[], install);
        let mut command = self.command(server);
        command.arg(self.folder.path().join("orthanc.json")).current_dir(self.folder.path());
        let mut process = Process::start(&mut command, &log, Some(self.folder.path()));
        process.wait_until("Orthanc", &log, || self.get("/dicom-web/studies?limit=1").is_some());
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// A command that runs in the server's namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.namespace.id().to_string(), "--user", "--net", "--preserve-credentials", "--"])
            .arg(program);
        command
    }

    /// The root of its DICOMweb services, as it is called in its namespace.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{PORT}/dicom-web")
    }

    /// User and password.
    pub fn account(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// The body of the server's answer, where it is a success.
    pub fn get(&self, path: &str) -> Option<String> {
        let login = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        // The shell has a client of its own.
        let script = r#"exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '%s' "$2" >&3 && cat <&3"#;
        let request = format!("GET {path} HTTP/1.0\r\nAuthorization: Basic {login}\r\nConnection: close\r\n\r\n");
        let mut command = self.command("bash");
        command.args(["-c", script, "get", &PORT.to_string(), &request]).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().expect("`nsenter` of util-linux runs bash");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let success = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        success.then(|| answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()))?
    }
}

/// A process that holds a network namespace with a loopback interface.
fn namespace(folder: &Path) -> Process {
    let (log, ready) = (folder.join("namespace.log"), folder.join("namespace-ready"));
    let mut command = Command::new("unshare");
    let script = r#"ip link set lo up && : >"$1" && exec sleep infinity"#;
    command.args(["--map-root-user", "--net", "sh", "-c", script, "namespace"]).arg(&ready);
    let mut process = Process::start(&mut command, &log, None);
    let what = "a network namespace for Orthanc (`unshare --map-root-user --net` of util-linux and `ip` of iproute2; where the system \
                forbids it, run the tests as root or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1)";
    process.wait_until(what, &log, || ready.is_file());
    process
}

/// The DICOMweb plug-in, which lies in no path.
fn plugin() -> PathBuf {
    let name = "libOrthancDicomWeb.so";
    let places = ["/usr/share/orthanc/plugins", "/usr/lib/orthanc", "/usr/local/share/orthanc/plugins"];
    let places = places.map(|folder| Path::new(folder).join(name));
    let install = "install it (Debian: apt-get install orthanc-dicomweb)";
    program(name, "HIRESMED_TEST_ORTHANC_DICOMWEB", &places, install)
}
