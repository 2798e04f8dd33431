//! The console: one serial port, which one cell owns, for the text of all cells.
//!
//! The owner writes the port; the others hand their text to the owner. When the owner is dead, a
//! survivor adopts the port. Text is for people: nothing in the system reads it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`output`] | where text goes |
//! | [`uart`] | the serial port, on the cell that owns it |
//! | [`remote`] | text on its way to the owner, and text that the owner got |
//! | [`input`] | bytes that somebody typed; adoption |
//! | [`logger`] | messages of the kernel, with time and cell |
//! | [`line_editor`] | what typing does to a line |
//! | [`shell`] | the commands |
//! | [`commands`] | what they show |

pub mod commands;
pub mod input;
pub mod line_editor;
pub mod logger;
pub mod output;
pub mod remote;
pub mod shell;
pub mod uart;
