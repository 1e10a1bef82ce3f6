//! The environment: the `NAME=value` words of the boot command line.

use super::errno::EINVAL;
use crate::image::cell::OneCpu;
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicPtr, Ordering};

struct Environment {
    words: Vec<CString>,
    /// Pointers to `words` and a null, as C wants them; `environ` points here.
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers are to `words`, which is beside them.
unsafe impl Send for Environment {}

static ENVIRONMENT: OneCpu<Environment> =
    OneCpu::new(Environment { words: Vec::new(), pointers: Vec::new() });

/// C's `environ`, which `std::env::vars` reads.
#[unsafe(no_mangle)]
static environ: AtomicPtr<*const c_char> = AtomicPtr::new(core::ptr::null_mut());

impl Environment {
    fn publish(&mut self) {
        self.pointers = self.words.iter().map(|word| word.as_ptr()).collect();
        self.pointers.push(core::ptr::null());
        environ.store(self.pointers.as_mut_ptr(), Ordering::Relaxed);
    }

    fn position(&self, name: &[u8]) -> Option<usize> {
        self.words.iter().position(|word| {
            word.to_bytes().strip_prefix(name).is_some_and(|rest| rest.first() == Some(&b'='))
        })
    }
}

/// Sets the whole environment. Of two words with one name the later counts.
pub(crate) fn set(words: Vec<String>) {
    ENVIRONMENT.with(|environment| {
        for word in words {
            let name = word.split_once('=').map_or(&*word, |(name, _)| name);
            let old = environment.position(name.as_bytes());
            // The command line holds no zero byte, so nothing is lost here.
            let Ok(word) = CString::new(word) else { continue };
            match old {
                Some(index) => environment.words[index] = word,
                None => environment.words.push(word),
            }
        }
        environment.publish();
    });
}

/// What `environ` points to.
pub(crate) fn pointer() -> *const *const c_char {
    environ.load(Ordering::Relaxed)
}

/// The value of a variable, or null.
///
/// # Safety
/// C's: `name` is a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn getenv(name: *const c_char) -> *const c_char {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    ENVIRONMENT.with(|environment| match environment.position(name) {
        Some(index) => environment.words[index].as_ptr().wrapping_add(name.len() + 1),
        None => core::ptr::null(),
    })
}

/// Sets a variable; `EINVAL` for a name that cannot be one.
///
/// # Safety
/// C's: both are C strings.
#[unsafe(no_mangle)]
unsafe extern "C" fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int {
    // SAFETY: the caller's promise.
    let (name, value) =
        unsafe { (CStr::from_ptr(name).to_bytes(), CStr::from_ptr(value).to_bytes()) };
    if name.is_empty() || name.contains(&b'=') {
        return EINVAL.fail();
    }
    let word = [name, b"=", value].concat();
    ENVIRONMENT.with(|environment| {
        let Ok(word) = CString::new(word) else { return EINVAL.fail() };
        match environment.position(name) {
            Some(_) if overwrite == 0 => return 0,
            Some(index) => environment.words[index] = word,
            None => environment.words.push(word),
        }
        environment.publish();
        0
    })
}

/// Takes a variable away; `EINVAL` for a name that cannot be one.
///
/// # Safety
/// C's: `name` is a C string.
#[unsafe(no_mangle)]
unsafe extern "C" fn unsetenv(name: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    if name.is_empty() || name.contains(&b'=') {
        return EINVAL.fail();
    }
    ENVIRONMENT.with(|environment| {
        if let Some(index) = environment.position(name) {
            environment.words.remove(index);
            environment.publish();
        }
    });
    0
}
