//! What the unwinder (libgcc's) asks: where the tables are.

use crate::image::layout;
use core::ffi::{c_char, c_int, c_void};

unsafe extern "C" {
    static __eh_frame_hdr: u8;
}

/// `struct dl_find_object` (glibc, dlfcn.h).
#[repr(C)]
struct FoundObject {
    flags: u64,
    map_start: *const c_void,
    map_end: *const c_void,
    link_map: *const c_void,
    eh_frame: *const c_void,
    reserved: [u64; 7],
}

/// The object that `address` lies in: the image, if it is code. -1 ends the unwinding.
///
/// # Safety
/// glibc's: `place` is writable.
#[unsafe(no_mangle)]
unsafe extern "C" fn _dl_find_object(address: *const c_void, place: *mut FoundObject) -> c_int {
    let text = layout::text();
    if !text.contains(address as u64) {
        return -1;
    }
    // SAFETY: the caller's promise; the linker script defines the symbol.
    unsafe {
        place.write(FoundObject {
            flags: 0,
            map_start: text.start as *const c_void,
            map_end: text.end as *const c_void,
            link_map: core::ptr::null(),
            eh_frame: (&raw const __eh_frame_hdr).cast(),
            reserved: [0; 7],
        });
    }
    0
}

/// `struct dl_phdr_info` (glibc, link.h).
#[repr(C)]
struct ObjectInfo {
    address: u64,
    name: *const c_char,
    headers: *const crate::elf::ProgramHeader,
    header_count: u16,
    adds: u64,
    subs: u64,
    tls_module: usize,
    tls_data: *const c_void,
}

type Callback = extern "C" fn(*const ObjectInfo, usize, *mut c_void) -> c_int;

/// Shows the one object that there is: the image, with its own program headers.
#[unsafe(no_mangle)]
extern "C" fn dl_iterate_phdr(callback: Callback, data: *mut c_void) -> c_int {
    let headers = layout::program_headers();
    let info = ObjectInfo {
        address: 0,
        name: c"".as_ptr(),
        headers: headers.as_ptr(),
        header_count: headers.len() as u16,
        adds: 1,
        subs: 0,
        tls_module: 0,
        tls_data: core::ptr::null(),
    };
    callback(&info, size_of::<ObjectInfo>(), data)
}
