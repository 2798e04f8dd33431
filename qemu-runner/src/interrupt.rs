//! Ctrl-C: asked for by a signal, noticed by every wait.
//!
//! The handler only sets a flag, so that the code that started a QEMU also ends it and removes its
//! files.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: Once = Once::new();

/// Takes over SIGINT, SIGTERM and SIGHUP; later calls do nothing.
pub fn install() {
    INSTALLED.call_once(|| {
        let handler = || REQUESTED.store(true, Ordering::SeqCst);
        if let Err(error) = ctrlc::set_handler(handler) {
            eprintln!("warning: no signal handler, so Ctrl-C may leave files behind: {error}");
        }
    });
}

/// Fails once an interrupt was asked for.
///
/// # Errors
/// [`Error::Interrupted`].
pub fn check() -> Result<()> {
    if REQUESTED.load(Ordering::SeqCst) {
        Err(Error::Interrupted)
    } else {
        Ok(())
    }
}

/// Waits until `condition` gives a value; `None` at the deadline.
///
/// # Errors
/// [`Error::Interrupted`], and whatever `condition` fails with.
pub fn wait_for<T>(
    limit: Duration,
    pause: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        check()?;
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
    }
}
