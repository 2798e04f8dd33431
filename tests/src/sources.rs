//! The project's own source files, for the tests of style.

use std::fs;
use std::path::{Path, PathBuf};

pub use qemu_runner::images::workspace_root;

/// A source file.
#[derive(Debug)]
pub struct Source {
    /// Its path below the root, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The folders that hold crates.
///
/// # Panics
/// If the root cannot be read.
pub fn folders() -> Vec<String> {
    let root = workspace_root();
    let mut folders: Vec<String> = fs::read_dir(&root)
        .expect("the root can be read")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("Cargo.toml").is_file())
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_string()))
        .collect();
    folders.sort();
    folders
}

/// Every Rust file of every crate.
///
/// # Panics
/// If one cannot be read.
pub fn rust_files() -> Vec<Source> {
    let root = workspace_root();
    let mut paths = Vec::new();
    for folder in folders() {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    let read = |path: PathBuf| {
        let name = path
            .strip_prefix(&root)
            .unwrap_or(&path)
            .display()
            .to_string();
        Source {
            name,
            text: fs::read_to_string(&path).expect("the file can be read"),
        }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder)
        .expect("the folder can be read")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// The name and the number of lines of each function, in the layout that `rustfmt` gives. Assembly
/// is one instruction to a line and is not counted.
pub fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut functions = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let naked = lines[..start]
            .iter()
            .rev()
            .take_while(|line| is_attribute(line));
        if naked.into_iter().any(|line| line.contains("naked")) {
            continue;
        }
        let indent = &line[..line.len() - line.trim_start().len()];
        let closes = |line: &&str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest.starts_with('}'))
        };
        let declares = |line: &&str| {
            line.strip_prefix(indent)
                .is_some_and(|rest| rest.starts_with(')') && rest.ends_with(';'))
        };
        // A declaration without a body, or a function that fits on a line.
        if line.ends_with(';') || line.ends_with('}') {
            continue;
        }
        let end = lines[start..]
            .iter()
            .position(|line| closes(line) || declares(line));
        functions.extend(end.map(|length| (name, length + 1)));
    }
    functions
}

fn is_attribute(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn function_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    let (before, after) = code.split_once("fn ")?;
    let qualifier = |word: &str| {
        word.starts_with("pub")
            || word.starts_with('"')
            || [
                "const", "async", "unsafe", "extern", "in", "crate)", "super)",
            ]
            .contains(&word)
    };
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    (end > 0 && before.split_whitespace().all(qualifier)).then(|| &after[..end])
}
