//! How the system's allocator is to treat large memory.
#![allow(unsafe_code)]

/// Pieces of this size are given back to the system when they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK_BYTES: libc::c_int = 1 << 20;

/// Has large memory given back to the system as soon as it is freed. glibc raises the size from which it does that to as
/// much as 32 MB, by the sizes that it sees freed: chunks of rows, 8 MB each, would all stay with the process.
pub fn give_large_memory_back() {
    // SAFETY: changes a number in the allocator, before other threads are started.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK_BYTES);
    }
}
