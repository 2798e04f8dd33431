//! A bootable ISO with the two images: GRUB for BIOS machines, multiboot, the kernel as a module.
//!
//! # References
//! GRUB manual 2.06, `grub-mkrescue`, `multiboot`, `module`; Multiboot Specification 0.6.96.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::bounded;
use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::packages::{Packages, on_path};

/// What makes ISOs.
pub const PACKAGES: Packages = Packages {
    what: "What makes a bootable ISO (grub-mkrescue, GRUB's BIOS modules, xorriso)",
    debian: &["grub-pc-bin", "grub-common", "xorriso", "mtools"],
    others: &[
        (
            "fedora",
            "dnf install grub2-tools-extra grub2-pc-modules xorriso mtools",
        ),
        ("arch", "pacman -S grub libisoburn mtools"),
        ("alpine", "apk add grub grub-bios xorriso mtools"),
    ],
    otherwise: "install the packages that have grub-mkrescue, GRUB's i386-pc modules and xorriso",
    error: Error::Iso,
};

/// The name of the program differs between distributions.
const PROGRAMS: [&str; 2] = ["grub-mkrescue", "grub2-mkrescue"];
/// Where the modules for BIOS machines are.
const MODULES: [&str; 2] = ["/usr/lib/grub/i386-pc", "/usr/share/grub2/i386-pc"];
const LIMIT: Duration = Duration::from_mins(2);

/// The tools that make an ISO.
#[derive(Clone, Debug)]
pub struct Tools {
    mkrescue: PathBuf,
    modules: PathBuf,
}

/// Looks for the tools.
///
/// # Errors
/// None; `Ok(None)` if one is missing.
pub fn find() -> Result<Option<Tools>> {
    let mkrescue = PROGRAMS.into_iter().find_map(on_path);
    let has_multiboot = |folder: &PathBuf| folder.join("multiboot.mod").is_file();
    let modules = MODULES.iter().map(PathBuf::from).find(has_multiboot);
    Ok(match (mkrescue, modules, on_path("xorriso")) {
        (Some(mkrescue), Some(modules), Some(_)) => Some(Tools { mkrescue, modules }),
        _ => None,
    })
}

/// Looks for the tools and installs them where they are missing and that is possible.
///
/// # Errors
/// [`Error::Iso`] says what to install.
pub fn ensure() -> Result<Tools> {
    match find()? {
        Some(tools) => Ok(tools),
        None => PACKAGES.install(find),
    }
}

/// Refuses a file that cannot be made.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_place(path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_dir() {
        return Err(Error::Usage(format!("{shown} is a directory, not a file")));
    }
    // The parent of a bare name is the empty path.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder.filter(|folder| !folder.is_dir()) {
        Some(folder) => {
            let folder = folder.display();
            Err(Error::Usage(format!("{shown}: {folder} is no directory")))
        }
        None => Ok(()),
    }
}

impl Tools {
    /// Makes an ISO at `path` that boots `images` with the boot parameters of `line`.
    ///
    /// # Errors
    /// [`Error::Iso`] with the tool's own words, [`Error::Usage`] if there can be no such file,
    /// [`Error::Host`] if others cannot be written.
    pub fn make(&self, path: &Path, images: &Images, line: &str) -> Result<()> {
        let folder = tempfile::tempdir().context(|| "making a directory".into())?;
        let boot = folder.path().join("boot");
        let grub = boot.join("grub");
        fs::create_dir_all(&grub).context(|| format!("making {}", grub.display()))?;
        for (image, name) in [
            (&images.monitor, "hive-monitor"),
            (&images.kernel, "hive-kernel"),
        ] {
            let content = fs::read(image).context(|| format!("reading {}", image.display()))?;
            let content = loaded_part(&content).unwrap_or(content);
            let copy = boot.join(name);
            fs::write(&copy, content).context(|| format!("writing {}", copy.display()))?;
        }
        let menu = grub.join("grub.cfg");
        fs::write(&menu, configuration(line)).context(|| format!("writing {}", menu.display()))?;
        // Opened first, for an error that names the file; the tool's own is hard to read.
        fs::File::create(path).argument(|| format!("creating {}", path.display()))?;
        let mut command = Command::new(&self.mkrescue);
        // The one folder of modules keeps it from making an image for UEFI, under which a monitor
        // that asks for BIOS memory and tables does not start.
        command.arg("-d").arg(&self.modules);
        command.args(["--locales=", "--fonts=", "--themes=", "-o"]);
        let answer = bounded::ask(command.arg(path).arg(folder.path()), LIMIT)?;
        if answer.is_success() {
            return Ok(());
        }
        let (name, said) = (self.mkrescue.display(), answer.describe(LIMIT));
        Err(Error::Iso(format!("{name} {said}")))
    }
}

/// An ELF file up to the end of its last segment, without sections: all that is loaded. The rest
/// is for debuggers, and reading it by the firmware takes most of a boot. `None` if it is no such
/// file.
///
/// The multiboot header has the addresses of its own, so the monitor needs no more either.
fn loaded_part(file: &[u8]) -> Option<Vec<u8>> {
    /// Where the file header (64 bytes) has: the segments' headers, the sections' (both with their
    /// entry sizes and counts); where a segment's header has its offset and its length.
    const SEGMENTS: usize = 32;
    const SEGMENT_BYTES: usize = 54;
    const SEGMENT_COUNT: usize = 56;
    const SECTIONS: Range<usize> = 40..48;
    const SECTION_COUNTS: Range<usize> = 58..64;
    const OFFSET: usize = 8;
    const LENGTH: usize = 32;
    let word = |at: usize| Some(u64::from_le_bytes(*file.get(at..)?.first_chunk()?));
    let half = |at: usize| Some(u16::from_le_bytes(*file.get(at..)?.first_chunk()?));
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (first, bytes) = (word(SEGMENTS)? as usize, half(SEGMENT_BYTES)? as usize);
    let mut end = 64;
    for index in 0..half(SEGMENT_COUNT)? as usize {
        let header = first.checked_add(index * bytes)?;
        let part = word(header.checked_add(OFFSET)?)?.checked_add(word(header + LENGTH)?)?;
        end = end.max(part as usize).max(header + bytes);
    }
    let mut content = file.get(..end)?.to_vec();
    content.get_mut(SECTIONS)?.fill(0);
    content.get_mut(SECTION_COUNTS)?.fill(0);
    Some(content)
}

/// GRUB's menu: one entry, at once.
fn configuration(line: &str) -> String {
    format!(
        "set timeout=0\nmenuentry \"Hive\" {{\n\
         \tmultiboot /boot/hive-monitor {line}\n\
         \tmodule /boot/hive-kernel\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::{Object, ObjectSegment};

    #[test]
    fn the_menu_boots_the_monitor_with_its_parameters_and_the_kernel() {
        let text = configuration("cells=4 firewall=npt");
        assert!(text.contains("multiboot /boot/hive-monitor cells=4 firewall=npt\n"));
        assert!(text.contains("module /boot/hive-kernel\n"));
    }

    #[test]
    fn what_is_loaded_of_an_elf_file_is_kept() {
        let own = std::env::current_exe().and_then(fs::read);
        let own = own.expect("the test's own file can be read");
        let part = loaded_part(&own).expect("it is an ELF file");
        assert!(part.len() < own.len());
        let segments = |file: &[u8]| {
            let elf = object::File::parse(file).expect("it is an ELF file");
            let data = |segment: object::Segment<'_, '_>| segment.data().map(<[u8]>::len);
            elf.segments()
                .map(data)
                .collect::<std::result::Result<Vec<_>, _>>()
        };
        assert_eq!(segments(&part), segments(&own));
        fuzz::cases(&[&own[..4096]], |bytes| drop(loaded_part(bytes)));
    }

    #[test]
    fn a_tool_that_fails_is_quoted() {
        let images = Images {
            monitor: "/dev/null".into(),
            kernel: "/dev/null".into(),
        };
        let tools = Tools {
            mkrescue: "/bin/false".into(),
            modules: "/".into(),
        };
        let folder = tempfile::tempdir().expect("a directory can be made");
        let made = tools.make(&folder.path().join("x.iso"), &images, "");
        assert!(matches!(made, Err(Error::Iso(said)) if said.contains("/bin/false")));
        let made = tools.make(&folder.path().join("none/x.iso"), &images, "");
        assert!(matches!(made, Err(Error::Usage(said)) if said.contains("none/x.iso")));
    }
}
