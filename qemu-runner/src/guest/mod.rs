//! The guest's records, read from the file that backs its memory.
//!
//! Everything here reads words at offsets that the `cell` crate gives, checks them, and only then
//! uses them: a sick cell can have written anything.
//!
//! | module | what it holds |
//! |---|---|
//! | [`memory`] | the file, addressed by physical address |
//! | [`symbols`] | where the monitor's record lies |
//! | [`integrity`] | whether code and constants are still what the images hold |
//! | [`written`] | what a cell wrote, as the processor marked it |
//! | [`difference`] | how all memory differs from that of another run |
//! | [`machine`] | the monitor's record |
//! | [`cells`] | the public areas of the cells |
//! | [`trace`] | trace rings, followed while they are written |
//! | [`clock`] | the guest's time, as seen from the host |

pub mod cells;
pub mod clock;
pub mod difference;
pub mod integrity;
pub mod machine;
pub mod memory;
pub mod symbols;
pub mod trace;
pub mod written;
