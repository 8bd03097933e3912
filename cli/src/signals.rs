//! Ctrl-C and SIGTERM: the first one asks for an orderly stop, the second one ends the process.

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
