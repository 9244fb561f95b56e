//! The system's allocator, which keeps freed memory for later.
//!
//! A model is many thousands of blocks that live as long as it does. When it goes, its pages lie free among others' blocks, and
//! the process stays as large as it was until somebody asks for them back.

/// Blocks of at least so many bytes are given to the system one by one, and go back to it when they are freed. Without a word
/// glibc raises this limit to the largest block that was ever freed, up to 32 MiB: then weights lie among small blocks.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES: i32 = 1 << 20;

/// Makes large blocks go back to the system when they are freed. Called once, before models are loaded.
#[allow(
    unsafe_code,
    reason = "the C library's allocator has no safe interface"
)]
pub fn keep_large_blocks_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two numbers and touches the allocator's own state alone, under its lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES);
    }
}

/// Gives free pages back to the system. Takes milliseconds, and meanwhile others who allocate wait.
#[allow(
    unsafe_code,
    reason = "the C library's allocator has no safe interface"
)]
pub fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim takes a number and gives back pages that no block is on, under the allocator's lock.
    unsafe {
        libc::malloc_trim(0);
    }
}
