//! What typing does to a line.

/// Longest line; further characters are ignored.
pub const LINE_BYTES: usize = 80;

const BACKSPACE: u8 = 0x08;
const DELETE: u8 = 0x7f;
/// Ctrl-C.
const CANCEL: u8 = 0x03;
/// Ctrl-U.
const ERASE: u8 = 0x15;

/// What the terminal is to show for a byte, and whether the line is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    /// Nothing.
    Nothing,
    /// This character.
    Echo(u8),
    /// One character less.
    RubOut,
    /// This many characters less.
    RubOutLine(usize),
    /// The line is complete; [`LineEditor::take`] has it.
    Complete,
    /// The line is forgotten.
    Cancelled,
}

/// A line that is being typed.
#[derive(Debug)]
pub struct LineEditor {
    bytes: [u8; LINE_BYTES],
    length: usize,
    /// The last byte was a carriage return: a line feed right behind it belongs to it.
    after_return: bool,
}

impl LineEditor {
    /// An empty line.
    pub const fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            length: 0,
            after_return: false,
        }
    }

    /// Takes a byte.
    pub fn feed(&mut self, byte: u8) -> Reaction {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\n' if after_return => Reaction::Nothing,
            b'\r' | b'\n' => Reaction::Complete,
            BACKSPACE | DELETE if self.length > 0 => {
                self.length -= 1;
                Reaction::RubOut
            }
            CANCEL => {
                self.length = 0;
                Reaction::Cancelled
            }
            ERASE => Reaction::RubOutLine(core::mem::take(&mut self.length)),
            b' '..=b'~' if self.length < LINE_BYTES => {
                self.bytes[self.length] = byte;
                self.length += 1;
                Reaction::Echo(byte)
            }
            _ => Reaction::Nothing,
        }
    }

    /// The complete line, and an empty one from now on.
    pub fn take(&mut self) -> Line {
        let line = Line {
            bytes: self.bytes,
            length: self.length,
        };
        self.length = 0;
        line
    }
}

impl Default for LineEditor {
    fn default() -> Self {
        Self::new()
    }
}

/// A complete line of printable ASCII.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    /// The text.
    pub fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> Vec<String> {
        let mut editor = LineEditor::new();
        let mut lines = Vec::new();
        for &byte in bytes {
            if editor.feed(byte) == Reaction::Complete {
                lines.push(editor.take().text().to_owned());
            }
        }
        lines
    }

    #[test]
    fn editing_keys_edit() {
        assert_eq!(typed(b"help\r"), ["help"]);
        assert_eq!(typed(b"hellp\x08\x08p\n"), ["help"]);
        assert_eq!(typed(b"nonsense\x15cells\r\n"), ["cells"]);
        assert_eq!(typed(b"nonsense\x03work\r"), ["work"]);
        assert_eq!(typed(b"\x7f\x7fa\r"), ["a"], "nothing to rub out");
    }

    #[test]
    fn returns_and_line_feeds_end_one_line_each_pair() {
        assert_eq!(typed(b"a\r\nb\nc\r"), ["a", "b", "c"]);
        assert_eq!(typed(b"\n\n"), ["", ""]);
    }

    #[test]
    fn no_bytes_overflow_a_line() {
        let mut bytes = vec![b'x'; 500];
        bytes.push(b'\r');
        assert_eq!(typed(&bytes), ["x".repeat(LINE_BYTES)]);
        assert_eq!(typed(b"\x1b[A\xffok\r"), ["[Aok"]);
    }

    #[test]
    fn whatever_is_typed_the_line_is_short_printable_text() {
        let valid: [&[u8]; 3] = [
            b"help\r",
            b"hellp\x08\x08p\nwork\x15cells\r\n",
            b"\x1b[A\x03x\r",
        ];
        fuzz::cases(&valid, |bytes| {
            let mut shown = 0;
            let mut editor = LineEditor::new();
            for &byte in bytes {
                match editor.feed(byte) {
                    Reaction::Echo(_) => shown += 1,
                    Reaction::RubOut => shown -= 1,
                    Reaction::RubOutLine(count) => shown -= count,
                    Reaction::Cancelled => shown = 0,
                    Reaction::Complete => {
                        let line = editor.take();
                        assert_eq!(line.text().len(), shown);
                        assert!(line.text().bytes().all(|byte| matches!(byte, b' '..=b'~')));
                        shown = 0;
                    }
                    Reaction::Nothing => {}
                }
                assert!(shown <= LINE_BYTES);
            }
        });
    }
}
