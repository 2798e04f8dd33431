//! Output: progress on stderr for people, results on stdout for people or programs.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stderr, stdout};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::error::{Error, Result};

/// Who reads the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A person.
    Text,
    /// A program: one JSON object.
    Json,
}

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Style {
    /// A line that is rewritten in place, on a terminal.
    Rewritten,
    /// A line for each thing that is finished, in a file or a pipe.
    Lines,
    /// Not at all.
    Silent,
}

/// Progress on stderr: one line, rewritten in place; or, where that is no terminal, a line for each
/// thing that is finished.
#[derive(Debug)]
pub struct Progress {
    /// What the line says now.
    shown: String,
    /// What every line begins with.
    title: String,
    style: Style,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Self {
            shown: String::new(),
            title: String::new(),
            style: if stderr().is_terminal() {
                Style::Rewritten
            } else {
                Style::Lines
            },
        }
    }

    /// Never shows anything.
    pub const fn silent() -> Self {
        Self {
            shown: String::new(),
            title: String::new(),
            style: Style::Silent,
        }
    }

    /// Shows what is being done from now on, before each step of it.
    pub fn begin(&mut self, title: &str) {
        self.title = format!("{title}: ");
        self.step("");
    }

    /// Shows what is being done now.
    pub fn step(&mut self, text: &str) {
        if self.style == Style::Rewritten && self.shown != text {
            eprint!("\r\x1b[K{}{text}", self.title);
            // Progress that cannot be shown is no reason to stop.
            let _ = stderr().flush();
            text.clone_into(&mut self.shown);
        }
    }

    /// Says that something is finished, where no line that is rewritten shows it.
    pub fn finished(&self, text: &str) {
        if let Some(line) = self.line(text) {
            eprintln!("{line}");
        }
    }

    fn line<'a>(&self, text: &'a str) -> Option<&'a str> {
        (self.style == Style::Lines).then_some(text)
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if !self.shown.is_empty() {
            eprint!("\r\x1b[K");
            self.shown.clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Prints one JSON object on a line of its own.
///
/// # Errors
/// [`Error::Host`] if it cannot be written.
pub fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let host = |source| Error::Host {
        context: "writing JSON".into(),
        source,
    };
    let text = serde_json::to_string(value).map_err(|error| host(error.into()))?;
    print_text(&format!("{text}\n"))
}

/// Prints text as it is.
///
/// # Errors
/// [`Error::Host`] if it cannot be written.
pub fn print_text(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Error::Host {
            context: "writing the result".into(),
            source,
        })
}

/// "1 cell", "4 cells".
pub fn counted(count: u64, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// A path as one word of a shell's command line.
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    // Only a zero byte cannot be quoted, and no path has one.
    shlex::try_quote(&text).map_or_else(|_| text.to_string(), Cow::into_owned)
}

/// Whether whoever read the standard output has gone.
pub fn is_unread() -> bool {
    has_no_reader(stdout())
}

fn has_no_reader(file: impl AsFd) -> bool {
    let mut files = [PollFd::new(&file, PollFlags::empty())];
    let asked = poll(&mut files, Some(&Timespec::default()));
    let gone = PollFlags::ERR | PollFlags::HUP;
    asked.is_ok() && files[0].revents().intersects(gone)
}

/// Adds a line to a text.
pub fn push_line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Right-pads every column but the last to its widest entry.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|text| text.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(entry, &width)| format!("{entry:<width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_blank_is_one_word() {
        assert_eq!(quoted(Path::new("runs/wild")), "runs/wild");
        let odd = Path::new("my runs/it's $HOME");
        let words = shlex::split(&format!("replay {} 3", quoted(odd)));
        let words = words.unwrap_or_default();
        assert_eq!(words, ["replay", "my runs/it's $HOME", "3"]);
    }

    #[test]
    fn a_pipe_whose_reader_went_is_unread() -> std::io::Result<()> {
        let (reader, writer) = std::io::pipe()?;
        assert!(!has_no_reader(&writer));
        drop(reader);
        assert!(has_no_reader(&writer));
        assert!(!has_no_reader(std::fs::File::open("/dev/null")?));
        Ok(())
    }

    #[test]
    fn what_is_finished_is_told_where_no_line_is_rewritten() {
        let told = |style: Style| {
            let mut progress = Progress::silent();
            progress.style = style;
            progress.line("run 1").is_some()
        };
        let styles = [Style::Rewritten, Style::Lines, Style::Silent];
        assert_eq!(styles.map(told), [false, true, false]);
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(
            [counted(1, "cell"), counted(4, "CPU")],
            ["1 cell", "4 CPUs"]
        );
    }

    #[test]
    fn tables_align_their_columns() {
        let rows = vec![
            vec!["a".into(), "bb".into()],
            vec!["ccc".into(), "d".into()],
        ];
        assert_eq!(table(&rows), "a    bb\nccc  d\n");
    }
}
