//! A shared, writable memory mapping and its end.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;

/// Mapped memory, page-aligned, unmapped on drop.
pub(super) struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone; its users reach it only through atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// The first `length` bytes of a file, which must be that long.
    pub(super) fn of_file(file: &File, length: usize) -> io::Result<Map> {
        Map::new(length, libc::MAP_SHARED | libc::MAP_POPULATE, file.as_raw_fd())
    }

    /// Memory of no file, all zero.
    pub(super) fn anonymous(length: usize) -> io::Result<Map> {
        Map::new(length, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)
    }

    fn new(length: usize, flags: i32, fd: i32) -> io::Result<Map> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))?;
        Ok(Map { start, length })
    }

    /// Where it starts.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped; nothing borrowed from it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
