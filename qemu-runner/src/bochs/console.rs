//! The serial port of a machine under Bochs on the runner's terminal.
//!
//! Bochs's port is given the far end of a pseudo-terminal; two threads carry bytes between the near
//! end and the runner's own input and output. Ctrl-A X leaves, as with QEMU.
//!
//! # Invariants
//! 1. The terminal is as it was once [`Console`] is dropped.

use std::fs::File;
use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Result};

/// Ctrl-A, which comes before a command to the console itself.
const ESCAPE: u8 = 1;

/// The console, as long as it is there.
#[derive(Debug)]
pub struct Console {
    near: File,
    /// Kept open, so that the near end does not break before Bochs has opened it.
    _far: File,
    name: String,
    leaves: Arc<AtomicBool>,
    before: Option<Termios>,
}

impl Console {
    /// Makes a pseudo-terminal.
    ///
    /// # Errors
    /// [`Error::Host`] if the host has none.
    pub fn new() -> Result<Self> {
        let near = open_near().map_err(std::io::Error::from);
        let (near, name) = near.context(|| "opening a pseudo-terminal".into())?;
        let far = File::options().read(true).write(true).open(&name);
        let far = far.context(|| format!("opening {name}"))?;
        // Nothing that the machine writes may come back to it as input.
        let settings = tcgetattr(&far).map(|mut settings| {
            settings.make_raw();
            tcsetattr(&far, OptionalActions::Now, &settings)
        });
        settings
            .and_then(|set| set)
            .map_err(std::io::Error::from)
            .context(|| format!("setting up {name}"))?;
        Ok(Self {
            near: File::from(near),
            _far: far,
            name,
            leaves: Arc::default(),
            before: None,
        })
    }

    /// What the configuration says of the serial port.
    pub fn serial(&self) -> String {
        format!("mode=term, dev={}", self.name)
    }

    /// Begins to carry bytes; the terminal gives each key as it is pressed from now on.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn begin(&mut self) -> Result<()> {
        if stdin().is_terminal() {
            let failed = |error| Error::Host {
                context: "setting up the terminal".into(),
                source: std::io::Error::from(error),
            };
            let before = tcgetattr(stdin()).map_err(failed)?;
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(failed)?;
            self.before = Some(before);
        }
        let duplicate = || {
            self.near
                .try_clone()
                .context(|| "sharing the console".into())
        };
        let (from_machine, to_machine) = (duplicate()?, duplicate()?);
        let leaves = Arc::clone(&self.leaves);
        // Both end with the process at the latest: they wait for bytes that may never come.
        thread::spawn(move || show(from_machine));
        thread::spawn(move || take_input(to_machine, &leaves));
        Ok(())
    }

    /// Whether the user wants to leave.
    pub fn leaves(&self) -> bool {
        self.leaves.load(Ordering::SeqCst)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs nothing.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
            eprintln!();
        }
    }
}

fn open_near() -> rustix::io::Result<(OwnedFd, String)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let name = ptsname(&near, Vec::new())?;
    Ok((near, name.to_string_lossy().into_owned()))
}

fn show(mut machine: File) {
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = machine.read(&mut chunk) {
        let mut out = stdout();
        if out
            .write_all(&chunk[..count])
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
}

fn take_input(mut machine: File, leaves: &AtomicBool) {
    let mut keys = Keys::default();
    let mut chunk = [0; 256];
    while let Ok(count @ 1..) = stdin().read(&mut chunk) {
        let (bytes, wish) = keys.take(&chunk[..count]);
        if machine.write_all(&bytes).is_err() {
            break;
        }
        if wish == Wish::Leave {
            leaves.store(true, Ordering::SeqCst);
            break;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Stay,
    Leave,
}

/// Tells commands to the console from keys for the machine: Ctrl-A X leaves, Ctrl-A Ctrl-A is one
/// Ctrl-A.
#[derive(Debug, Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    fn take(&mut self, keys: &[u8]) -> (Vec<u8>, Wish) {
        let mut bytes = Vec::new();
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return (bytes, Wish::Leave),
                (_, key) => bytes.push(key),
            }
        }
        (bytes, Wish::Stay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_a_x_leaves_and_the_rest_goes_through() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r"), (b"ls\r".to_vec(), Wish::Stay));
        assert_eq!(keys.take(&[ESCAPE]), (vec![], Wish::Stay));
        assert_eq!(keys.take(&[ESCAPE, b'x']), (vec![ESCAPE, b'x'], Wish::Stay));
        assert_eq!(keys.take(b"ab\x01xcd"), (b"ab".to_vec(), Wish::Leave));
    }

    #[test]
    fn the_far_end_gets_what_is_written_to_the_near_one() {
        let mut console = Console::new().expect("the host has pseudo-terminals");
        console.near.write_all(b"hello\r").expect("it is open");
        let mut heard = [0; 6];
        let mut far = File::open(&console.name).expect("it has a name");
        far.read_exact(&mut heard).expect("it is open");
        assert_eq!(&heard, b"hello\r");
    }
}
