//! How a kernel lends its locks to this crate.
//!
//! The CPUs of one cell share its rings. What they share is behind a [`Lock`] of the kernel's own
//! kind, since only the kernel knows how to keep its interrupt handlers out meanwhile.

/// A value that one CPU of the cell changes at a time.
///
/// The kernel's lock keeps interrupts off while `work` runs. No `work` in this crate waits for
/// anything, and none takes a second lock of the same kind of value; so the lock is held for a
/// bounded time.
pub trait Lock<T> {
    /// Puts `value` behind a lock.
    fn new(value: T) -> Self;

    /// Runs `work` while nobody else does.
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R;
}

/// A kind of [`Lock`], for whatever value.
pub trait Locking {
    /// The lock around a `T`.
    type Lock<T>: Lock<T>;
}
