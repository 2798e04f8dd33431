//! Bochs's debugger, by its standard input and output.
//!
//! The debugger takes a line when it shows its prompt, and the machine stands still as long as it
//! shows it. So what is read between two lines of dialogue is of one moment.
//!
//! # Invariants
//! 1. The machine runs only inside [`Debugger::go_on`].
//! 2. Every wait has a limit, and notices an interrupt of the runner.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, Error, Result};
use crate::interrupt;

/// How long the debugger may take to answer while the machine stands still, or to stop it.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks for an interrupt.
const PAUSE: Duration = Duration::from_millis(50);
/// What it says last that is shown in errors.
const LAST_WORDS: usize = 600;

/// Why the machine stands still again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// A watched address was written.
    Written {
        /// By which CPU.
        cpu: usize,
        /// The physical address.
        address: u64,
    },
    /// It was stopped after so many steps, or from outside.
    Other,
}

/// The debugger of one Bochs.
#[derive(Debug)]
pub struct Debugger {
    pid: Pid,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    text: Answers,
    ticks: u64,
}

impl Debugger {
    /// Takes over the pipes of a Bochs that was just started, and waits for the first prompt.
    ///
    /// # Errors
    /// [`Error::Bochs`] with its words if it ends instead.
    pub fn attach(child: &mut Child) -> Result<Self> {
        let missing = || Error::Bochs("started without pipes".into());
        let input = child.stdin.take().ok_or_else(missing)?;
        let mut stdout = child.stdout.take().ok_or_else(missing)?;
        let (sender, output) = channel();
        // Ends with Bochs's output, or when nobody listens any more.
        thread::spawn(move || {
            let mut chunk = [0; 16 << 10];
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut debugger = Self {
            pid: Pid::from_child(child),
            input,
            output,
            text: Answers::default(),
            ticks: 0,
        };
        debugger.answer()?;
        // Its own disassembly of every CPU at every stop would be most of what it says.
        debugger.command("set u off")?;
        Ok(debugger)
    }

    /// Instructions that each CPU had time for so far.
    pub const fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Says a line that leaves the machine standing still, and returns the answer.
    ///
    /// # Errors
    /// [`Error::Bochs`] if the debugger does not understand it, or is gone.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        let answer = self.answer()?;
        if answer.contains("syntax error") {
            return Err(Error::Bochs(format!("does not understand \"{line}\"")));
        }
        Ok(answer)
    }

    /// Lets the machine run until it stops by itself, or for `slice` of the host's time. Says why
    /// it stopped, and all that was shown meanwhile: traced instructions, one to a line.
    ///
    /// # Errors
    /// [`Error::Bochs`] if it cannot be stopped, [`Error::Interrupted`].
    pub fn go_on(&mut self, line: &str, slice: Duration) -> Result<(Stop, String)> {
        self.say(line)?;
        let answer = if let Some(answer) = self.prompt(slice)? {
            answer
        } else {
            // An error means that it ended, which the next look finds.
            let _ = kill_process(self.pid, Signal::INT);
            self.prompt(ANSWER_LIMIT)?.ok_or_else(|| silent(line))?
        };
        // Without the disassembly it does not say the time either, unless it is asked.
        let time = self.command("ptime")?;
        let unclear = || Error::Bochs(format!("ptime says \"{}\"", time.trim()));
        self.ticks = ticks(&time).ok_or_else(unclear)?;
        Ok((written(&answer).unwrap_or(Stop::Other), answer))
    }

    fn say(&mut self, line: &str) -> Result<()> {
        let said = self.input.write_all(format!("{line}\n").as_bytes());
        said.and_then(|()| self.input.flush())
            .context(|| "talking to Bochs's debugger".into())
    }

    fn answer(&mut self) -> Result<String> {
        let answer = self.prompt(ANSWER_LIMIT)?;
        answer.ok_or_else(|| silent("a command"))
    }

    /// What it says up to its next prompt; `None` if there is none within `limit`.
    fn prompt(&mut self, limit: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = self.text.take() {
                return Ok(Some(answer));
            }
            interrupt::check()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left.min(PAUSE)) {
                Ok(chunk) => self.text.push(&String::from_utf8_lossy(&chunk)),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Bochs(self.last_words())),
            }
        }
    }

    fn last_words(&self) -> String {
        let exiting = self
            .text
            .text
            .split_once("exiting with the following message:\n");
        if let Some((_, message)) = exiting {
            return message.lines().next().unwrap_or_default().into();
        }
        let start = self.text.text.len().saturating_sub(LAST_WORDS);
        let start = (start..self.text.text.len()).find(|&at| self.text.text.is_char_boundary(at));
        format!(
            "ended\n{}",
            self.text.text[start.unwrap_or_default()..].trim()
        )
    }
}

fn silent(what: &str) -> Error {
    let seconds = ANSWER_LIMIT.as_secs();
    Error::Bochs(format!(
        "its debugger did not answer {what} within {seconds} s"
    ))
}

/// What the debugger said and nobody took yet.
#[derive(Debug, Default)]
struct Answers {
    text: String,
    /// No prompt begins before here: a trace may be millions of lines, which come one by one.
    seen: usize,
}

impl Answers {
    const PROMPT: &str = "<bochs:";

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Takes what stands before the first prompt, `<bochs:NUMBER> `, out with the prompt.
    fn take(&mut self) -> Option<String> {
        while let Some(found) = self.text[self.seen..].find(Self::PROMPT) {
            let start = self.seen + found;
            let number = start + Self::PROMPT.len();
            let digits = self.text[number..].bytes().take_while(u8::is_ascii_digit);
            let end = number + digits.count();
            if end > number && self.text[end..].starts_with("> ") {
                let answer = self.text[..start].to_string();
                self.text.drain(..end + 2);
                self.seen = 0;
                return Some(answer);
            }
            if self.text.len() < end + 2 {
                // The rest of it may still come.
                self.seen = start;
                return None;
            }
            self.seen = number;
        }
        let end = self.text.len().saturating_sub(Self::PROMPT.len());
        self.seen = self.seen.max(self.text.floor_char_boundary(end));
        None
    }
}

fn ticks(answer: &str) -> Option<u64> {
    let digits = answer.rsplit_once("ptime: ")?.1;
    digits.lines().next()?.trim().parse().ok()
}

/// The line is `(CPU) Caught write watch point at 0xADDRESS`.
fn written(answer: &str) -> Option<Stop> {
    let (before, after) = answer.split_once(") Caught write watch point at 0x")?;
    let cpu = before.rsplit_once('(')?.1.parse().ok()?;
    let address = u64::from_str_radix(after.lines().next()?.trim(), 16).ok()?;
    Some(Stop::Written { cpu, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_at_prompts() {
        let mut answers = Answers::default();
        answers.push("one <bochs:x> two\n<bochs:12> three");
        assert_eq!(answers.take().as_deref(), Some("one <bochs:x> two\n"));
        assert_eq!(answers.text, "three");
        for part in ["<boc", "hs:13", ">"] {
            answers.push(part);
            assert_eq!(answers.take(), None, "the prompt is not whole");
        }
        answers.push(" ");
        assert_eq!(answers.take().as_deref(), Some("three"));
        assert_eq!(answers.text, "");
    }

    #[test]
    fn stops_are_understood() {
        let answer = "c\n(3) Caught write watch point at 0x000000136000\nptime: 127794955\n";
        let stop = Stop::Written {
            cpu: 3,
            address: 0x13_6000,
        };
        assert_eq!(written(answer), Some(stop));
        assert_eq!(ticks(answer), Some(127_794_955));
        assert_eq!(written("ptime: 5\n"), None);
        assert_eq!(ticks("ptime: \n"), None);
    }

    #[test]
    fn spoilt_answers_are_survived() {
        let valid = b"c\n(3) Caught write watch point at 0x136000\nptime: 5\n<bochs:1> ";
        fuzz::cases(&[valid], |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = (written(&text), ticks(&text));
            let mut answers = Answers::default();
            answers.push(&text);
            while answers.take().is_some() {}
        });
    }
}
