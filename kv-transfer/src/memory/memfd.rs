//! Anonymous files that are shared with peers by descriptor, and leave nothing behind.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// A file of `len` bytes whose size nobody can change any more.
pub(crate) fn create_sealed(name: &str, len: u64) -> std::io::Result<OwnedFd> {
    sealed(name, len, MemfdFlags::empty())
}

/// The same on reserved huge pages; fails when the machine has too few of them.
pub(crate) fn create_sealed_huge(name: &str, len: u64) -> std::io::Result<OwnedFd> {
    sealed(name, len.next_multiple_of(HUGE_PAGE_BYTES), MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
}

fn sealed(name: &str, len: u64, flags: MemfdFlags) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags)?;
    rustix::fs::ftruncate(&fd, len)?;
    rustix::fs::fcntl_add_seals(fd.as_fd(), SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Checks that a peer's file is at least `len` bytes and stays so.
pub(crate) fn verify_sealed(fd: BorrowedFd<'_>, len: u64) -> std::io::Result<()> {
    let refuse = |reason: String| Err(std::io::Error::new(std::io::ErrorKind::InvalidData, reason));
    let seals = rustix::fs::fcntl_get_seals(fd)?;
    if !seals.contains(SealFlags::SHRINK) {
        return refuse("the peer's memory is not sealed against shrinking".to_owned());
    }
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    if size < len {
        return refuse(format!("the peer's memory has {size} bytes where {len} were announced"));
    }
    Ok(())
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_can_shrink_or_is_short_is_refused() {
        let fd = create_sealed("test", 4096).unwrap();
        verify_sealed(fd.as_fd(), 4096).unwrap();
        assert!(verify_sealed(fd.as_fd(), 4097).is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err(), "sealed");
        let loose =
            rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&loose, 4096).unwrap();
        assert!(verify_sealed(loose.as_fd(), 4096).is_err());
    }
}
