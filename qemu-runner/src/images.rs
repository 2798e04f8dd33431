//! The two images: the monitor and the cell kernel, built by a cargo of their own.
//!
//! They need link arguments that no other crate may get, and profiles of their own, so they are
//! built into a target directory below the workspace's: the outer cargo's lock and flags stay out
//! of it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Context, Error, Result};

/// The target that is always there.
pub const HOST_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The bare target, where it is installed.
pub const BARE_TARGET: &str = "x86_64-unknown-none";

/// Where the images are.
#[derive(Clone, Debug)]
pub struct Images {
    /// The monitor, which QEMU boots.
    pub monitor: PathBuf,
    /// The cell kernel, which the monitor is given as a module.
    pub kernel: PathBuf,
}

/// How to build.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// The target triple.
    pub target: String,
    /// The cargo profile.
    pub profile: String,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            target: HOST_TARGET.into(),
            profile: "release".into(),
        }
    }
}

/// The root of the workspace.
pub fn workspace_root() -> PathBuf {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.parent().unwrap_or(member).to_path_buf()
}

/// Where the images' own cargo builds.
pub fn target_directory() -> PathBuf {
    let outer = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace_root().join(outer).join("images")
}

/// Builds both images and says where they are.
///
/// # Errors
/// [`Error::Build`] with cargo's own words.
pub fn build(options: &BuildOptions) -> Result<Images> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(workspace_root())
        .args([
            "build",
            "--quiet",
            "-p",
            "boot-image",
            "-p",
            "kernel-image",
            "--target-dir",
        ])
        .arg(target_directory())
        .args(["--target", &options.target, "--profile", &options.profile])
        // Flags for the outer build (loom, coverage) would change the images.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()
        .context(|| "starting cargo".into())?;
    if !output.status.success() {
        return Err(Error::Build(explain(
            options,
            &String::from_utf8_lossy(&output.stderr),
        )));
    }
    let profile = if options.profile == "dev" {
        "debug"
    } else {
        &options.profile
    };
    locate(&target_directory().join(&options.target).join(profile))
}

/// The images in a directory.
///
/// # Errors
/// [`Error::Build`] if one is missing.
pub fn locate(directory: &Path) -> Result<Images> {
    let find = |name: &str| {
        let path = directory.join(name);
        let missing = || Error::Build(format!("{} does not exist", path.display()));
        path.canonicalize().map_err(|_| missing())
    };
    Ok(Images {
        monitor: find("hive-monitor")?,
        kernel: find("hive-kernel")?,
    })
}

fn explain(options: &BuildOptions, stderr: &str) -> String {
    let remedy = if options.target == BARE_TARGET && stderr.contains("can't find crate for `core`")
    {
        format!("\nthe target is not installed: rustup target add {BARE_TARGET}")
    } else {
        String::new()
    };
    format!("cargo says:\n{}{remedy}", stderr.trim_end())
}
