//! The two images: the monitor and the cell kernel, built by a cargo of their own.
//!
//! They need link arguments that no other crate may get, and profiles of their own, so they are
//! built into a target directory below the workspace's: the outer cargo's lock and flags stay out
//! of it.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::build::elf::Builder;

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

#[cfg(test)]
impl Images {
    /// For tests in which nobody looks into them.
    pub(crate) const fn none() -> Self {
        Self {
            monitor: PathBuf::new(),
            kernel: PathBuf::new(),
        }
    }
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
        // Kept beside the image, see `separate`.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
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
    let built = target_directory().join(&options.target).join(profile);
    separate(&built)?;
    locate(&built.join(SEPARATE))
}

/// Where the images lie that were separated from their debug information.
const SEPARATE: &str = "separate";
/// The images.
const NAMES: [&str; 2] = ["hive-monitor", "hive-kernel"];

/// The file with the debug information of an image: beside it, or the image itself.
pub fn debug_file(image: &Path) -> PathBuf {
    let beside = image.with_extension(DEBUG);
    if beside.exists() {
        beside
    } else {
        image.to_path_buf()
    }
}

/// What the name of a file with debug information ends in.
const DEBUG: &str = "debug";

/// Copies what cargo built into a directory of its own, without the debug information, which goes
/// beside it. What cargo built is left alone, so that builds at the same time do no harm.
fn separate(built: &Path) -> Result<()> {
    let directory = built.join(SEPARATE);
    fs::create_dir_all(&directory).context(|| format!("making {}", directory.display()))?;
    for name in NAMES {
        let (from, to) = (built.join(name), directory.join(name));
        let data = fs::read(&from).context(|| format!("reading {}", from.display()))?;
        let beside = to.with_extension(DEBUG);
        if fs::read(&beside).is_ok_and(|before| before == data) && to.exists() {
            continue;
        }
        let stripped = without_debug(&data)
            .map_err(|error| Error::Build(format!("{}: {error}", from.display())))?;
        // The image first: who finds the debug information unchanged relies on the image.
        replace(&directory, &to, &stripped)?;
        replace(&directory, &beside, &data)?;
    }
    Ok(())
}

/// Puts a file in the place of another in one step.
fn replace(directory: &Path, path: &Path, content: &[u8]) -> Result<()> {
    let context = || format!("writing {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(directory).context(context)?;
    file.write_all(content).context(context)?;
    file.persist(path)
        .map_err(|error| error.error)
        .context(context)?;
    Ok(())
}

/// An ELF file without its debug information.
fn without_debug(data: &[u8]) -> std::result::Result<Vec<u8>, object::build::Error> {
    let mut builder = Builder::read(data)?;
    for section in &mut builder.sections {
        section.delete |= section.name.starts_with(b".debug_");
    }
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}

/// The images in a directory.
///
/// # Errors
/// [`Error::Build`] if one is missing.
pub fn locate(directory: &Path) -> Result<Images> {
    let [monitor, kernel] = NAMES;
    let find = |name: &str| {
        let path = directory.join(name);
        let missing = || Error::Build(format!("{} does not exist", path.display()));
        path.canonicalize().map_err(|_| missing())
    };
    Ok(Images {
        monitor: find(monitor)?,
        kernel: find(kernel)?,
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
