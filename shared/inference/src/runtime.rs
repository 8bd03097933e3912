//! Finding and loading ONNX Runtime, once a process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{arena, session::Provider};

/// Environment variable that names the folder of native libraries.
pub const RUNTIMES_VARIABLE: &str = "HIRESMED_RUNTIMES";
/// Name of that folder where the variable is not set: beside the project, above the executable.
pub const RUNTIMES_FOLDER: &str = ".runtimes";

/// Why ONNX Runtime is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder of native libraries was found.
    #[error(
        "no folder of native libraries: {RUNTIMES_VARIABLE} is not set and no folder above {} has {RUNTIMES_FOLDER}; \
         run `make build` in the project, or set {RUNTIMES_VARIABLE} to its {RUNTIMES_FOLDER} folder",
        .searched.display()
    )]
    NoFolder {
        /// Where the search began: the executable's folder.
        searched: PathBuf,
    },
    /// The folder is there, the library is not.
    #[error("{} is missing: run `make {target}` in the project to fetch it", .path.display())]
    NoLibrary {
        /// The library that was expected.
        path: PathBuf,
        /// The make target that fetches it.
        target: &'static str,
    },
    /// The library is there and cannot be loaded.
    #[error("cannot load {}: {cause}; run `make build` to fetch the native libraries again", .path.display())]
    Unloadable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        cause: String,
    },
}

/// ONNX Runtime, loaded. Cheap to clone; the library stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) environment: ort::environment::Environment,
    path: PathBuf,
    version: String,
}

static LOADED: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads ONNX Runtime from the folder of native libraries ([`folder`]), or returns what is loaded already.
    pub fn load() -> Result<Self, Error> {
        Self::load_for(Provider::Cpu)
    }

    /// Loads the build of ONNX Runtime that has `provider`, or returns what is loaded already: a process has one.
    ///
    /// # Errors
    /// The build was not fetched, or its libraries (for CUDA: CUDA 13 and its driver) cannot be loaded.
    pub fn load_for(provider: Provider) -> Result<Self, Error> {
        Self::load_within(provider, None)
    }

    /// As [`Runtime::load_for`]; sessions take at most `memory` bytes of the host's memory for what they compute with, all
    /// together, where that is given. A run that would take more fails ([`is_short_of_memory`](crate::session::is_short_of_memory)).
    ///
    /// # Errors
    /// As [`Runtime::load_for`].
    pub fn load_within(provider: Provider, memory: Option<usize>) -> Result<Self, Error> {
        if let Some(runtime) = LOADED.get() {
            return Ok(runtime.clone());
        }
        let (build, target) = match provider {
            Provider::Cpu => ("onnxruntime", "build"),
            Provider::Cuda { .. } => ("onnxruntime-cuda", "runtimes-cuda"),
        };
        let path = folder()?.join(build).join("lib/libonnxruntime.so");
        if !path.is_file() {
            return Err(Error::NoLibrary { path, target });
        }
        Self::load_from(&path, memory)
    }

    /// Loads ONNX Runtime from one file. A process has one ONNX Runtime: what was loaded first is returned.
    fn load_from(path: &Path, memory: Option<usize>) -> Result<Self, Error> {
        let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = LOADED.get() {
            return Ok(runtime.clone());
        }
        let unloadable = |cause: String| Error::Unloadable { path: path.to_owned(), cause };
        let environment = ort::init_from(path)
            .map_err(|error| unloadable(error.to_string()))?
            .with_name("hiresmed")
            .with_telemetry(false)
            .with_logger(std::sync::Arc::new(log))
            .build()
            .map_err(|error| unloadable(error.to_string()))?;
        // The environment's own threshold; without it every message of every level crosses into the logger.
        environment.set_log_level(ort::logging::LogLevel::Warning);
        arena::register(&environment, memory).map_err(|error| unloadable(error.to_string()))?;
        let version = version(path).map_err(|error| unloadable(error.to_string()))?;
        let runtime = Self { environment, path: path.to_owned(), version };
        tracing::debug!(path = %runtime.path.display(), version = runtime.version, "ONNX Runtime is loaded");
        Ok(LOADED.get_or_init(|| runtime).clone())
    }

    /// The library's version, such as "1.31.1", as it stands in manifests.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The library's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder of native libraries: [`RUNTIMES_VARIABLE`] where set, else `.runtimes` in a folder above the executable, else
/// (in tests, whose executables may be built elsewhere) above the package that cargo runs.
pub fn folder() -> Result<PathBuf, Error> {
    if let Some(folder) = std::env::var_os(RUNTIMES_VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    let executable = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    find_above(&executable)
        .or_else(|| package.as_deref().and_then(find_above))
        .ok_or_else(|| Error::NoFolder { searched: executable.parent().map(Path::to_owned).unwrap_or_default() })
}

/// Asks the library itself: the build's description, which the binding offers, names a branch and no version.
#[allow(unsafe_code)]
fn version(path: &Path) -> Result<String, libloading::Error> {
    type GetApiBase = unsafe extern "C" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the file is ONNX Runtime and is loaded already, so opening it runs no initialiser; `OrtGetApiBase` has this
    // signature in every version of its C interface and returns a table that lives as long as the library, whose
    // `GetVersionString` returns a constant text that ends in zero.
    unsafe {
        let library = libloading::Library::new(path)?;
        let base = library.get::<GetApiBase>(b"OrtGetApiBase")?();
        let text = ((*base).GetVersionString)();
        Ok(std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

fn find_above(start: &Path) -> Option<PathBuf> {
    start.ancestors().map(|folder| folder.join(RUNTIMES_FOLDER)).find(|folder| folder.is_dir())
}

fn log(level: ort::logging::LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::debug!(category, location, "ONNX Runtime error: {message}"),
        LogLevel::Warning => tracing::debug!(category, location, "ONNX Runtime: {message}"),
        _ => tracing::trace!(category, location, "ONNX Runtime: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_loads_once_and_names_its_version() {
        let runtime = Runtime::load().unwrap();
        let parts: Vec<u32> = runtime.version().split('.').map(|part| part.parse().unwrap()).collect();
        assert!(parts.len() == 3 && parts[0] == 1 && parts[1] >= 31, "{}", runtime.version());
        assert_eq!(Runtime::load_from(Path::new("/nowhere/libonnxruntime.so"), None).unwrap().path(), runtime.path());
    }

    #[test]
    fn a_missing_library_names_the_next_step() {
        let missing = Error::NoLibrary { path: "runtimes/libonnxruntime.so".into(), target: "runtimes-cuda" };
        let text = missing.to_string();
        assert!(text.contains("make runtimes-cuda") && text.contains("runtimes/libonnxruntime.so"));
        assert!(Error::NoFolder { searched: "bin".into() }.to_string().contains("HIRESMED_RUNTIMES"));
    }

    #[test]
    fn the_nearest_folder_above_wins() {
        assert_eq!(find_above(Path::new("/")), None);
    }
}
