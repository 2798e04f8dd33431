//! The lock of the kernel: interrupts off, then spin.
//!
//! Interrupt-level services and threads share data, so a holder must not be interrupted on its own
//! CPU. Holders are CPUs of one cell; a CPU that stops while it holds a lock stops its cell, which
//! the other cells then find.
//!
//! # Invariants
//! 1. Interrupts are off on the holder's CPU for as long as it holds the lock.
//! 2. Nothing blocks, yields or waits for another cell while it holds one.
//! 3. Order, outermost first: threads' stacks, page tables, scheduler table, frames, heap, console.
//!    None is taken inside a later one.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::cpu::interrupts::InterruptsOff;

/// Data that is reached with interrupts off, by one CPU at a time.
pub struct Lock<T: ?Sized> {
    inner: SpinMutex<T>,
}

impl<T> Lock<T> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self {
            inner: SpinMutex::new(value),
        }
    }
}

impl<T: ?Sized> Lock<T> {
    /// Waits for the lock, interrupts off.
    pub fn lock(&self) -> Guard<'_, T> {
        let interrupts = InterruptsOff::new();
        Guard {
            inner: self.inner.lock(),
            _interrupts: interrupts,
            _here: PhantomData,
        }
    }

    /// Takes the lock if it is open.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let interrupts = InterruptsOff::new();
        let inner = self.inner.try_lock()?;
        Some(Guard {
            inner,
            _interrupts: interrupts,
            _here: PhantomData,
        })
    }
}

impl<T: ?Sized> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("is_locked", &self.inner.is_locked())
            .finish_non_exhaustive()
    }
}

/// Access to the data of a [`Lock`]. The lock opens first, interrupts come back after it: fields
/// drop in order.
#[derive(Debug)]
pub struct Guard<'a, T: ?Sized> {
    inner: SpinMutexGuard<'a, T>,
    _interrupts: InterruptsOff,
    /// A guard stays on its CPU.
    _here: PhantomData<*const ()>,
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_cannot_be_taken_again() {
        let lock = Lock::new(1);
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        *lock.lock() += 1;
        assert_eq!(*lock.lock(), 2);
    }
}
