//! Nested tables: what one cell can reach.
//!
//! One table per cell, in monitor memory, guest-physical equal to host-physical. The NPT and EPT
//! back ends hang it under the root of the nested walk, the paging back end under the physical
//! window of the cell's own tables. The levels are the same everywhere; what the bits of an entry
//! mean is the back end's [`Format`](crate::format::Format).
//!
//! | module | what it does |
//! |---|---|
//! | `page` | one page of a table, and the sizes of everything |
//! | `leaves` | which page of 4 KiB entries serves which stretch of 2 MiB |
//! | `table` | the table: made for a life, and changed during it |
//! | `merge` | large pages again where small ones say all the same |
//!
//! # Pages that stay
//! A uniform stretch of 2 MiB is mapped by one entry, and so is a uniform GiB where the processor
//! can. Below that lie pages that say the same in more words, or say more: one page of 2 MiB
//! entries for each GiB, always, and one of 4 KiB entries for each stretch in which another cell
//! ever granted a frame. Each serves its GiB or its stretch for as long as the machine runs, and is
//! exact whether or not a walk comes by it. So a split is one exchange, of a large entry for the
//! way to its page, and a merge is the exchange back; no page is ever reused for other addresses,
//! and neither a processor that walks by an outdated entry, nor a CPU that stopped in the middle of
//! a change and goes on in a later life, meets a page that is about something else. What was
//! written is known after a merge as before it.
//!
//! # Invariants
//! 1. Every change is one compare-and-exchange or one store of one entry, so that a CPU that stops
//!    in the middle leaves a table that is valid, and that no CPU waits for another. The processor
//!    marks entries too, at any moment: an exchange that it spoils is tried again.
//! 2. Page addresses inside a table come from this table's own storage only.
//! 3. `NestedTable::close` unhooks the whole table from its root; the pages stay for
//!    `NestedTable::is_written`.
//! 4. Where stores need a grant, no large entry over another cell's memory allows any. So whatever
//!    becomes of a split or a merge, it opens nothing to stores.
//! 5. Who changes an entry looks at those above it afterwards; who merges marks the entry above
//!    first, and then looks at those below. One of the two sees the other (`merge`).
//!
//! # Not guaranteed
//! A processor may use an entry that it read before a change until it next enters the monitor. Who
//! revokes must kick the cell's CPUs and wait for them (`crate::monitor::fence`). After a split or
//! a merge it may hold both sizes of page for one address, which say the same; a cell's executable
//! memory, where some processors cannot bear that (Intel's erratum behind CVE-2018-12207), is its
//! own, and is neither split nor merged during a life. AMD's family 10h can answer both sizes with
//! a machine check (erratum 383, Revision Guide 41322), which stops the cell; nothing is done about
//! that here.

mod leaves;
mod merge;
mod page;
mod table;

#[cfg(all(test, not(loom)))]
mod tests;

pub use leaves::Exhausted;
pub use page::{Access, LargestPage, Size, TablePage};
pub use table::{NestedTable, Rules};
