//! The directory of a campaign: what was asked for, and every finished run.
//!
//! # Invariants
//! 1. A run is either a whole line of `runs.jsonl`, on the disk before the next begins, or it does
//!    not count: a line that was cut off is dropped and its run is done again.
//! 2. A directory holds runs of one campaign file, one seed, one machine and one pair of images.
//! 3. One runner at a time writes to a directory.
//! 4. Nothing of anybody else's is overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::file::Campaign;
use super::record::Record;
use super::resolve::Resolved;
use crate::commands::Setup;
use crate::error::{Context, Error, Result};
use crate::images::Images;
use crate::launch::Mode;
use crate::output::quoted;

const MANIFEST: &str = "manifest.json";
const RUNS: &str = "runs.jsonl";
/// The format of the manifest.
const SCHEMA: &str = "hive-campaign-manifest/1";

/// What was asked for, and on what.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Manifest {
    /// The format.
    pub schema: String,
    /// The campaign's name.
    pub name: String,
    /// What it shows.
    pub purpose: String,
    /// The campaign's seed.
    pub seed: u64,
    /// How many runs.
    pub runs: u32,
    /// How runs are carried out.
    pub mode: Mode,
    /// What ran.
    pub setup: Setup,
    /// The SHA-256 of the monitor's image.
    pub monitor_sha256: String,
    /// The SHA-256 of the cell kernel's image.
    pub kernel_sha256: String,
    /// The version of the runner.
    pub runner: String,
    /// The campaign file, verbatim.
    pub file: String,
}

impl Manifest {
    /// What is about to run.
    ///
    /// # Errors
    /// [`Error::Host`] if an image cannot be read.
    pub fn new(
        text: &str,
        campaign: &Campaign,
        seed: u64,
        runs: u32,
        on: (Setup, &Images),
    ) -> Result<Self> {
        let (setup, images) = on;
        Ok(Self {
            schema: SCHEMA.into(),
            name: campaign.name().into(),
            purpose: campaign.header.purpose.get_ref().clone(),
            seed,
            runs,
            mode: campaign.header.mode,
            setup,
            monitor_sha256: hash(&images.monitor)?,
            kernel_sha256: hash(&images.kernel)?,
            runner: env!("CARGO_PKG_VERSION").into(),
            file: text.into(),
        })
    }

    /// The campaign.
    ///
    /// # Errors
    /// [`Error::Usage`] if the file that was recorded cannot be read any more.
    pub fn campaign(&self) -> Result<Campaign> {
        let refused = |problem| Error::Usage(format!("the recorded campaign file: {problem}"));
        Campaign::parse(&self.file).map_err(refused)
    }

    /// What keeps runs of `other` out of this directory; `None` if nothing does.
    pub(super) fn differs_from(&self, other: &Self) -> Option<&'static str> {
        let pairs = [
            ("campaign", self.name == other.name),
            ("seed", self.seed == other.seed),
            ("campaign file", self.file == other.file),
            ("machine or QEMU", self.setup == other.setup),
            ("monitor image", self.monitor_sha256 == other.monitor_sha256),
            ("kernel image", self.kernel_sha256 == other.kernel_sha256),
        ];
        pairs.iter().find(|(_, same)| !same).map(|&(what, _)| what)
    }
}

fn hash(path: &Path) -> Result<String> {
    let bytes = fs::read(path).context(|| format!("reading {}", path.display()))?;
    let hex = |byte: &u8| format!("{byte:02x}");
    Ok(Sha256::digest(bytes).iter().map(hex).collect())
}

/// A campaign that was read back.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was asked for.
    pub manifest: Manifest,
    /// The finished runs, by number.
    pub records: BTreeMap<u32, Record>,
    /// How many bytes at the end of the file of the runs are no whole line.
    pub cut_off: u64,
}

impl Finished {
    /// What is to be said of a last line that was cut off; `None` if it is whole.
    pub fn cut_off_text(&self, directory: &Path) -> Option<String> {
        let (shown, word) = (directory.join(RUNS), quoted(directory));
        let shown = shown.display();
        (self.cut_off > 0).then(|| {
            format!(
                "{shown}: the last line was cut off and is left out; its run is not finished, and \
                 campaign run with --resume {word} carries it out again"
            )
        })
    }
}

/// Reads a campaign back.
///
/// # Errors
/// [`Error::Usage`] if there is none in the directory, or a line of it makes no sense.
pub fn read(directory: &Path) -> Result<Finished> {
    let manifest = read_manifest(directory)?
        .ok_or_else(|| Error::Usage(format!("{} holds no campaign", directory.display())))?;
    let path = directory.join(RUNS);
    let (records, whole) = read_runs(&path)?;
    let all = fs::metadata(&path).map_or(whole, |found| found.len());
    Ok(Finished {
        manifest,
        records,
        cut_off: all.saturating_sub(whole),
    })
}

/// What was asked for in a directory; `None` if nothing was.
///
/// # Errors
/// [`Error::Usage`] if it makes no sense, [`Error::Host`].
pub fn read_manifest(directory: &Path) -> Result<Option<Manifest>> {
    let path = directory.join(MANIFEST);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).argument(|| format!("reading {}", path.display()))?;
    let refused = |error| Error::Usage(format!("{}: {error}", path.display()));
    let manifest: Manifest = serde_json::from_str(&text).map_err(refused)?;
    if manifest.schema != SCHEMA {
        let (path, found) = (path.display(), &manifest.schema);
        return Err(Error::Usage(format!("{path}: {found}, expected {SCHEMA}")));
    }
    Ok(Some(manifest))
}

/// Refuses a directory for new runs that holds anything of somebody else's. Whether it holds a
/// campaign is told later, when no other runner can begin one.
///
/// # Errors
/// [`Error::Usage`] that names what it holds.
pub fn check_new(path: &Path) -> Result<()> {
    if !path.exists() || read_manifest(path)?.is_some() {
        return Ok(());
    }
    let shown = path.display();
    let entries = fs::read_dir(path).argument(|| format!("reading the directory {shown}"))?;
    // A runner that was stopped before its first run may have left these.
    let own = [RUNS.to_owned(), format!(".{MANIFEST}")];
    let names = entries.flatten().map(|entry| entry.file_name());
    match names
        .filter(|name| own.iter().all(|own| name != own.as_str()))
        .min()
    {
        None => Ok(()),
        Some(name) => Err(Error::Usage(format!(
            "{shown} is not empty and holds no campaign, but {}: runs go into a directory of their \
             own",
            name.display()
        ))),
    }
}

/// The runs, and how many bytes of the file are whole lines.
fn read_runs(path: &Path) -> Result<(BTreeMap<u32, Record>, u64)> {
    let mut records = BTreeMap::new();
    if !path.exists() {
        return Ok((records, 0));
    }
    let bytes = fs::read(path).argument(|| format!("reading {}", path.display()))?;
    let whole = bytes
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |end| end + 1);
    let lines = bytes[..whole].split(|&byte| byte == b'\n');
    for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let refused = |error| {
            let (shown, number) = (path.display(), number + 1);
            Error::Usage(format!(
                "{shown}: line {number} is damaged, or of another version of the runner: {error}; \
                 take the line out, and --resume carries out its run again"
            ))
        };
        let record: Record = serde_json::from_slice(line).map_err(refused)?;
        records.insert(record.run(), record);
    }
    Ok((records, whole as u64))
}

/// A campaign that is being run.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Locked as long as it is open.
    runs: File,
    /// How many bytes of it are whole lines.
    whole: u64,
    /// The finished runs, by number.
    pub records: BTreeMap<u32, Record>,
}

/// Whether a directory is new or goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// It must not hold a campaign.
    New,
    /// It must hold this campaign.
    Resumed,
}

impl Journal {
    /// Opens a directory for the runs of a campaign.
    ///
    /// # Errors
    /// [`Error::Usage`] if the directory holds another campaign, or none to go on with, or another
    /// runner writes to it.
    pub fn open(path: &Path, manifest: &Manifest, beginning: Beginning) -> Result<Self> {
        let shown = path.display();
        if beginning == Beginning::Resumed && read_manifest(path)?.is_none() {
            return Err(Error::Usage(format!(
                "{shown} holds no campaign to go on with"
            )));
        }
        if beginning == Beginning::New {
            check_new(path)?;
        }
        fs::create_dir_all(path).argument(|| format!("creating the directory {shown}"))?;
        let runs = lock(path)?;
        let mut manifest = manifest.clone();
        // Only now, because another runner may have been quicker.
        if let Some(old) = read_manifest(path)? {
            if beginning == Beginning::New {
                return Err(Error::Usage(format!(
                    "{shown} holds a campaign already; --resume {} goes on with it",
                    quoted(path)
                )));
            }
            if let Some(what) = old.differs_from(&manifest) {
                return Err(Error::Usage(format!(
                    "{shown} holds runs of another {what}; its runs cannot be mixed with these"
                )));
            }
            manifest.runs = manifest.runs.max(old.runs);
        } else if runs.metadata().is_ok_and(|found| found.len() > 0) {
            return Err(Error::Usage(format!(
                "{shown} holds a {RUNS} without a {MANIFEST}: nobody knows of what campaign"
            )));
        }
        let (records, whole) = read_runs(&path.join(RUNS))?;
        drawn_alike(path, &manifest, &records)?;
        write(path, MANIFEST, &pretty(&manifest)?)?;
        Ok(Self {
            path: path.to_path_buf(),
            runs,
            whole,
            records,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a finished run.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn add(&mut self, record: Record) -> Result<()> {
        let encoded = serde_json::to_string(&record).map_err(std::io::Error::from);
        let write = encoded.and_then(|line| {
            // What was cut off, by a crash then or a full disk just now, must not begin this line.
            self.runs.set_len(self.whole)?;
            self.runs.write_all(format!("{line}\n").as_bytes())?;
            self.runs.sync_data()?;
            Ok(line.len() as u64 + 1)
        });
        self.whole += write.context(|| format!("writing to {}", self.path.join(RUNS).display()))?;
        self.records.insert(record.run(), record);
        Ok(())
    }
}

/// Opens the file of the runs, and keeps other runners out for as long as it is open.
fn lock(directory: &Path) -> Result<File> {
    let (path, shown) = (directory.join(RUNS), directory.display());
    let opened = OpenOptions::new().create(true).append(true).open(&path);
    let runs = opened.argument(|| format!("opening {}", path.display()))?;
    match runs.try_lock() {
        Ok(()) => Ok(runs),
        Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
            "another runner carries out runs in {shown}"
        ))),
        Err(TryLockError::Error(error)) => {
            Err(error).context(|| format!("locking {}", path.display()))
        }
    }
}

/// Refuses finished runs that would be drawn otherwise today.
fn drawn_alike(path: &Path, manifest: &Manifest, records: &BTreeMap<u32, Record>) -> Result<()> {
    let campaign = manifest.campaign()?;
    let drawn = |run: u32| Resolved::of(&campaign, manifest.seed, run);
    match records.values().find(|it| it.resolved != drawn(it.run())) {
        None => Ok(()),
        Some(other) => Err(Error::Usage(format!(
            "{}: run {} was drawn by a runner that draws otherwise; its runs cannot be mixed with \
             these",
            path.display(),
            other.run()
        ))),
    }
}

/// JSON for files that people look at too.
///
/// # Errors
/// [`Error::Host`] if a value cannot be written as JSON.
pub fn pretty<T: Serialize>(value: &T) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::from);
    text.context(|| "writing JSON".into())
        .map(|text| text + "\n")
}

/// Writes a file of a campaign's directory; it is there whole or not at all.
///
/// # Errors
/// [`Error::Host`].
pub fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let path = directory.join(name);
    let temporary = directory.join(format!(".{name}"));
    let whole = || {
        let mut file = File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        // Or the name may outlive a crash of the host, and the text not.
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    whole().context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(crate) mod tests;
