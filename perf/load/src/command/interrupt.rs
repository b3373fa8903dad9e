//! Ctrl-C.

use std::{io, process, thread};

use tokio::{runtime::Builder, signal};
use tokio_util::sync::CancellationToken;

/// As shells give it for a process that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Cancelled by the first Ctrl-C, so that there are results so far; the second ends the process.
pub(super) fn on_ctrl_c() -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listen = async move {
        if signal::ctrl_c().await.is_ok() {
            cancelled.cancel();
            let _ = signal::ctrl_c().await;
            process::exit(INTERRUPTED);
        }
    };
    // Lives as long as the process.
    thread::Builder::new().name("interrupt".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(token)
}
