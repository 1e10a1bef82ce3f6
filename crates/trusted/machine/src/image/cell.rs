//! Statics on a machine with one processor.
//!
//! There is one flow of control: no second processor is started, nothing preempts, and interrupt
//! handlers touch only the bitmap of pending vectors (see `traps`). What is left of data races is
//! re-entry, when code that uses a static calls code that uses it again; that is caught here.

use core::cell::{Cell, UnsafeCell};

/// A static's value, lent to one user at a time.
pub(crate) struct OneCpu<T> {
    lent: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: there is one flow of control (module doc), so "shared between threads" does not happen;
// should threads come, this type is where the lock goes.
unsafe impl<T: Send> Sync for OneCpu<T> {}

impl<T> OneCpu<T> {
    pub(crate) const fn new(value: T) -> Self {
        OneCpu { lent: Cell::new(false), value: UnsafeCell::new(value) }
    }

    /// Runs `use_it` with the value, or gives `None` when the value is lent already: a crash report
    /// may come in the middle of anything.
    pub(crate) fn try_with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> Option<R> {
        if self.lent.replace(true) {
            return None;
        }
        // Given back even if `use_it` unwinds.
        let _return = Return(&self.lent);
        // SAFETY: `lent` was false and is true until `_return` drops, so no other reference exists.
        Some(use_it(unsafe { &mut *self.value.get() }))
    }

    /// Runs `use_it` with the value.
    ///
    /// # Panics
    /// When `use_it`'s caller already holds the value: a mistake in this crate.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        self.try_with(use_it).expect("a static of the machine was used while it was in use")
    }
}

struct Return<'a>(&'a Cell<bool>);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
