//! The cell's memory: frames, heap, stacks; and the ways to touch other cells' memory.
//!
//! | module | what it holds |
//! |---|---|
//! | [`window`] | physical addresses as pointers |
//! | [`frames`] | which frame of the cell serves what: the pure part |
//! | [`pool`] | the same over the cell's region |
//! | [`heap`] | the allocator behind `alloc` |
//! | [`stacks`] | stacks with guard pages |
//! | [`copy`] | the copy routine that survives a bus error |
//! | [`careful`] | reading other cells' memory |
//! | [`guarded`] | writing pages that other cells granted |

pub mod careful;
pub mod copy;
pub mod frames;
pub mod guarded;
pub mod heap;
pub mod pool;
pub mod stacks;
pub mod window;
