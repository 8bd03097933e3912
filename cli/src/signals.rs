//! Ctrl-C and SIGTERM: the first one asks for an orderly stop, the second one ends the process. SIGXFSZ is taken, so that
//! a limit on the size of files is an error of the write, with a message, and no silent death.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell expects of a process that a Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// Cancels `stop` at the first Ctrl-C or SIGTERM and exits at the second.
pub fn cancel_on_signal(stop: CancellationToken) {
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            // Without handlers the signals end the process at once, which the store survives.
            return;
        };
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                eprintln!("stopping after this image or step (once more to stop at once)");
                stop.cancel();
            }
        }
        std::process::exit(INTERRUPTED.into());
    });
}

/// Makes a write beyond the limit on the size of files (`ulimit -f`) fail, where the signal would end the process.
pub fn survive_size_limits() {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    // A handler needs a runtime only to be registered, and stays. Without one the process ends as before.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        let _entered = runtime.enter();
        drop(signal(kind));
    }
}
