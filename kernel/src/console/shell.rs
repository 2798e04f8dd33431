//! The shell: reads a line, runs its command, writes what it has to say.

use core::fmt::Write;

use crate::console::commands;
use crate::console::input;
use crate::console::line_editor::{LineEditor, Reaction};
use crate::console::output::{self, Console};
use crate::own::own;

/// What starts a line that can be typed.
const PROMPT: &str = "hive> ";

/// A command: its name, what may follow, what it does.
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) arguments: &'static str,
    pub(super) purpose: &'static str,
    pub(super) run: fn(&str),
}

/// Runs the shell.
pub fn run() -> ! {
    let mut editor = LineEditor::new();
    let mut bytes = [0; 32];
    loop {
        let count = input::wait(&mut bytes);
        if count == 0 {
            let _ = writeln!(Console, "\nThis is cell {}. Type help.", own().cell);
            output::write(PROMPT.as_bytes());
        }
        for &byte in &bytes[..count] {
            react(&mut editor, byte);
        }
    }
}

fn react(editor: &mut LineEditor, byte: u8) {
    match editor.feed(byte) {
        Reaction::Nothing => {}
        Reaction::Echo(byte) => output::write(&[byte]),
        Reaction::RubOut => output::write(b"\x08 \x08"),
        Reaction::RubOutLine(count) => (0..count).for_each(|_| output::write(b"\x08 \x08")),
        Reaction::Complete => {
            output::write(b"\n");
            execute(editor.take().text());
            output::write(PROMPT.as_bytes());
        }
        Reaction::Cancelled => {
            output::write(b"^C\n");
            output::write(PROMPT.as_bytes());
        }
    }
}

fn execute(line: &str) {
    let line = line.trim();
    let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
    if name.is_empty() {
        return;
    }
    match commands::ALL.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(arguments.trim()),
        None => {
            let _ = writeln!(Console, "{name}: unknown; type help");
        }
    }
}
