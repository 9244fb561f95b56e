//! An allocator that puts what it gives right before a page that cannot be accessed: nothing is between them but what is
//! left of the last alignment.

#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    ptr,
};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A multiple of the system's own pages, on any processor.
const PAGE: usize = 65536;
/// Smaller ones are no numbers of a model, and are too many for the system to map.
const LEAST: usize = 512;

/// The system's allocator for what is small, and pages of their own for the rest.
pub(crate) struct Guarded;

/// Bytes of the pages that hold an allocation, without the guard behind.
fn held(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE)
}

/// Returns the offset of an allocation in its pages: as near to their end as its alignment lets it.
fn begin(layout: Layout) -> usize {
    (held(layout) - layout.size()) / layout.align() * layout.align()
}

/// Alignments that the system's pages do not have are for nobody here.
fn is_small(layout: Layout) -> bool {
    layout.size() < LEAST || layout.align() > 4096
}

// SAFETY: a mapping is of its allocation alone, large enough, and unmapped with it; its start follows from the pointer.
unsafe impl GlobalAlloc for Guarded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            // SAFETY: the caller's promises.
            return unsafe { System.alloc(layout) };
        }
        let (held, both) = (held(layout), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping, and the last page of it.
        let mapped = unsafe {
            let start = mmap_anonymous(ptr::null_mut(), held + PAGE, both, MapFlags::PRIVATE);
            start.and_then(|start| {
                mprotect(start.byte_add(held), PAGE, MprotectFlags::empty()).map(|()| start)
            })
        };
        let Ok(start) = mapped else {
            return ptr::null_mut();
        };
        // SAFETY: within the mapping.
        unsafe { start.cast::<u8>().add(begin(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_small(layout) {
            // SAFETY: the caller's promises.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: the caller's promises. New mappings are zeros.
        unsafe { self.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if is_small(layout) {
            // SAFETY: it came from there.
            return unsafe { System.dealloc(pointer, layout) };
        }
        // SAFETY: that is where its mapping begins, which nobody uses any more.
        let unmapped = unsafe {
            let start = pointer.sub(begin(layout));
            munmap(start.cast(), held(layout) + PAGE)
        };
        if unmapped.is_err() {
            std::process::abort();
        }
    }
}

/// Reads the number behind the last.
pub(crate) fn read_beyond(numbers: &[f64]) -> f64 {
    // SAFETY: there is none: that is what is tested.
    unsafe { numbers.as_ptr().add(numbers.len()).read_volatile() }
}
