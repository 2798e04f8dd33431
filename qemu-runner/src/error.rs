//! What can go wrong on the host side, and the exit code that says so.
//!
//! A verdict against the machine is not an error: it is a result, with exit code 1. So is a machine
//! that went down before there was anything to judge, but there is nothing else to show of it.

use std::io;
use std::process::ExitCode;

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user asked for something impossible.
    #[error("{0}")]
    Usage(String),
    /// The images could not be built.
    #[error("building the images: {0}")]
    Build(String),
    /// QEMU is missing, too old, did not start, or ended too early.
    #[error("QEMU: {0}")]
    Qemu(String),
    /// Bochs is missing, another version, did not start, or ended too early.
    #[error("Bochs: {0}")]
    Bochs(String),
    /// A bootable ISO could not be made.
    #[error("making the ISO: {0}")]
    Iso(String),
    /// One of QEMU's control channels misbehaved.
    #[error("{channel}: {problem}")]
    Channel {
        /// Which channel.
        channel: &'static str,
        /// What it did.
        problem: String,
    },
    /// The guest did not come up, or its records make no sense.
    #[error("guest: {0}")]
    Guest(String),
    /// The machine went down before it could be judged.
    #[error("{0}")]
    Down(String),
    /// A file or process of the host failed.
    #[error("{context}: {source}")]
    Host {
        /// What was tried.
        context: String,
        /// What the host said.
        source: io::Error,
    },
    /// Too many runs of a campaign failed for reasons that are not the machine's.
    #[error("campaign: {0}")]
    Campaign(String),
    /// Ctrl-C, or a request to end.
    #[error("interrupted")]
    Interrupted,
}

/// The result of everything that can fail for a reason outside the machine under test.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code: 1 against the machine, 2 usage, 3 infrastructure, 130 interrupted.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Down(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::Build(_)
            | Self::Qemu(_)
            | Self::Bochs(_)
            | Self::Iso(_)
            | Self::Channel { .. }
            | Self::Guest(_)
            | Self::Campaign(_)
            | Self::Host { .. } => 3,
        }
    }

    /// The word for the kind of error in `--json` output.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Build(_) => "build",
            Self::Qemu(_) => "qemu",
            Self::Bochs(_) => "bochs",
            Self::Iso(_) => "iso",
            Self::Channel { .. } => "channel",
            Self::Guest(_) => "guest",
            Self::Down(_) => "down",
            Self::Host { .. } => "host",
            Self::Campaign(_) => "campaign",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Adds what was tried to an error of the host.
pub trait Context<T> {
    /// Says what was tried.
    ///
    /// # Errors
    /// [`Error::Host`] with that context.
    fn context(self, context: impl FnOnce() -> String) -> Result<T>;

    /// Says what was tried with a path from the command line: if the path is to blame, so is who
    /// gave it.
    ///
    /// # Errors
    /// [`Error::Usage`] with that context, or [`Error::Host`].
    fn argument(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Host {
            context: context(),
            source,
        })
    }

    fn argument(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| {
            let context = context();
            if is_of_the_path(source.kind()) {
                Error::Usage(format!("{context}: {source}"))
            } else {
                Error::Host { context, source }
            }
        })
    }
}

/// Whether another path would have helped.
const fn is_of_the_path(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::AlreadyExists
            | Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::ReadOnlyFilesystem
            | Kind::InvalidFilename
            | Kind::InvalidInput
    )
}

/// How a command that ran to its end is reported to the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Everything that was checked holds.
    Held,
    /// Something that was checked does not hold.
    Violated,
    /// Something on the host is missing or failed, which was already said.
    Unable,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Held => Self::from(0),
            Ending::Violated => Self::from(1),
            Ending::Unable => Self::from(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_cannot_be_is_a_usage_error_and_a_full_disk_is_not() {
        let code = |kind: io::ErrorKind| {
            let failed: io::Result<()> = Err(kind.into());
            failed
                .argument(|| "writing x".into())
                .map_err(|error| error.exit_code())
        };
        assert_eq!(code(io::ErrorKind::IsADirectory), Err(2));
        assert_eq!(code(io::ErrorKind::NotFound), Err(2));
        assert_eq!(code(io::ErrorKind::StorageFull), Err(3));
    }
}
