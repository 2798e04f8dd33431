//! Programs of the host: finding them, installing them where that is possible, or saying how.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bounded::{self, PROBE_LIMIT};
use crate::error::{Context, Error, Result};

/// How long apt-get may take for each of its two steps.
const APT_LIMIT: Duration = Duration::from_mins(10);

/// What has to be installed for something, and how.
#[derive(Debug)]
pub struct Packages {
    /// What it is for, as the first words of a sentence.
    pub what: &'static str,
    /// The packages of Debian and Ubuntu.
    pub debian: &'static [&'static str],
    /// The command of other distributions.
    pub others: &'static [(&'static str, &'static str)],
    /// What to look for on any other.
    pub otherwise: &'static str,
    /// Makes an error of a problem.
    pub error: fn(String) -> Error,
}

impl Packages {
    /// How to install them by hand on this host.
    pub fn remedy(&self) -> String {
        let distribution = distribution();
        let distribution = distribution.as_deref().unwrap_or_default();
        if is_debian(distribution) {
            let packages = self.debian.join(" ");
            return format!("apt-get install --no-install-recommends {packages}");
        }
        let known = |(name, _): &&(&str, &str)| distribution.starts_with(*name);
        let line = self.others.iter().find(known);
        line.map_or(self.otherwise, |(_, line)| line).into()
    }

    /// Installs them by apt-get, on Debian and Ubuntu, as root or through a sudo that asks for no
    /// password, and looks with `find` whether that helped.
    ///
    /// # Errors
    /// Says what to do by hand.
    pub fn install<T>(&self, find: impl FnOnce() -> Result<Option<T>>) -> Result<T> {
        let by_hand =
            |why: &str| (self.error)(format!("{why}; install it by hand: {}", self.remedy()));
        if !is_debian(&distribution().unwrap_or_default()) {
            return Err(by_hand("not found"));
        }
        let prefix: &[&str] = if rustix::process::geteuid().is_root() {
            &[]
        } else if sudo_without_password() {
            &["sudo", "-n"]
        } else {
            return Err(by_hand(
                "not found, and neither root nor sudo without a password is available",
            ));
        };
        let packages = self.debian.join(" ");
        eprintln!("{} is missing: installing {packages} by apt-get", self.what);
        let update = self.apt(prefix, &["update", "-q"])?;
        let mut words = vec!["install", "-y", "-q", "--no-install-recommends"];
        words.extend(self.debian);
        let install = self.apt(prefix, &words)?;
        match (install, find()?) {
            (true, Some(found)) => Ok(found),
            _ if !update => Err(by_hand("apt-get update failed")),
            _ => Err(by_hand("apt-get install failed")),
        }
    }

    fn apt(&self, prefix: &[&str], arguments: &[&str]) -> Result<bool> {
        let mut words = prefix
            .iter()
            .chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        let program = words.next().copied().unwrap_or("apt-get");
        let mut child = Command::new(program)
            .args(words)
            .args(arguments)
            .stdin(Stdio::null())
            // stdout belongs to the result, perhaps JSON.
            .stdout(std::io::stderr())
            .spawn()
            .context(|| "starting apt-get".into())?;
        match bounded::wait(&mut child, "apt-get", APT_LIMIT)? {
            Some(status) => Ok(status.success()),
            None => Err((self.error)(format!(
                "apt-get {} did not end within {} s; install it by hand: {}",
                arguments.first().copied().unwrap_or_default(),
                APT_LIMIT.as_secs(),
                self.remedy()
            ))),
        }
    }
}

/// Searches the path.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| is_executable(file))
}

/// Whether a file can be started.
pub fn is_executable(file: &Path) -> bool {
    let executable = |data: fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
    fs::metadata(file).is_ok_and(executable)
}

fn is_debian(distribution: &str) -> bool {
    matches!(distribution, "debian" | "ubuntu")
}

fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let word = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_string())
    };
    let known = |id: &String| {
        matches!(
            id.as_str(),
            "debian" | "ubuntu" | "fedora" | "arch" | "alpine"
        )
    };
    let like = || {
        let likes = word("ID_LIKE=")?;
        likes.split(' ').map(String::from).find(known)
    };
    word("ID=")
        .filter(known)
        .or_else(like)
        .or_else(|| word("ID="))
}

fn sudo_without_password() -> bool {
    let mut sudo = Command::new("sudo");
    let answer = bounded::ask(sudo.args(["-n", "true"]), PROBE_LIMIT);
    answer.is_ok_and(|answer| answer.is_success())
}
