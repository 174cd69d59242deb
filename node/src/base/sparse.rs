//! Files with holes: where their bytes are, and copies that have the same holes.
//!
//! What it is not: a judge of what is copied.

use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use rustix::{
    fs::{FallocateFlags, SeekFrom},
    io::Errno,
};

/// How much is copied before looking whether to go on, in bytes.
const COPIED_TOGETHER: u64 = 16 << 20;
/// How much is copied at a time where the file system does not do it, in bytes.
const COPIED_BY_HAND: usize = 1 << 20;
/// A file that takes this much less of the disk than it is long has holes. The last block of any file is longer than its bytes.
const LEAST_HOLES: u64 = 64 * 1024;

/// Why a copy is not whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyFailure {
    /// What is copied cannot be read.
    #[error("the file to copy cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The copy cannot be written.
    #[error("the copy cannot be written: {0}")]
    Write(#[source] io::Error),
}

/// Whether a file has holes, or its file system keeps it in less space than it is long.
pub(crate) fn is_sparse(file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.blocks().saturating_mul(512).saturating_add(LEAST_HOLES) <= found.len())
}

/// Makes a file the same as the first `len` bytes of another, or as many as there are; false if it was told to stop. Where the file system can, both
/// share their bytes on the disk. What a file had before stays in it behind the place where its copy fails or stops.
///
/// # Errors
/// Which of the two files refuses.
pub(crate) fn copy(from: &File, to: &File, len: u64, go_on: &dyn Fn() -> bool) -> Result<bool, CopyFailure> {
    let len = from.metadata().map_err(CopyFailure::Read)?.len().min(len);
    if clone(from, to, len).map_err(CopyFailure::Write)? {
        return Ok(true);
    }
    let mut at = 0;
    while let Some(data) = next_data(from, at..len).map_err(CopyFailure::Read)? {
        clear(to, at..data.start).map_err(CopyFailure::Write)?;
        if !copy_range(from, to, data.clone(), go_on)? {
            return Ok(false);
        }
        at = data.end;
    }
    clear(to, at..len).map_err(CopyFailure::Write)?;
    to.set_len(len).map_err(CopyFailure::Write)?;
    Ok(true)
}

/// Makes a file the same as the first `len` bytes of another, with which it shares them on the disk; false where the file system cannot.
pub(crate) fn clone(from: &File, to: &File, len: u64) -> io::Result<bool> {
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        return Ok(false);
    }
    to.set_len(len)?;
    Ok(true)
}

/// Makes zeros of a range of a file that may be shorter; they take no space where the file system has holes.
pub(crate) fn clear(file: &File, range: Range<u64>) -> io::Result<()> {
    let end = range.end.min(file.metadata()?.len());
    if end <= range.start {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, end - range.start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, range.start..end),
        cleared => Ok(cleared?),
    }
}

/// The next part of a range that is no hole, as far as the file system tells.
fn next_data(file: &File, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
    if range.is_empty() {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(range.start)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(range)),
        Err(error) => return Err(error.into()),
    };
    if start >= range.end {
        return Ok(None);
    }
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(range.end);
    // One that was cut meanwhile has nothing more.
    Ok((start < end).then_some(start..end))
}

fn copy_range(from: &File, to: &File, range: Range<u64>, go_on: &dyn Fn() -> bool) -> Result<bool, CopyFailure> {
    let (mut read_at, mut write_at) = (range.start, range.start);
    while read_at < range.end {
        if !go_on() {
            return Ok(false);
        }
        let next = usize::try_from((range.end - read_at).min(COPIED_TOGETHER)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), next) {
            Ok(0) => break,
            Ok(_) => {}
            // Not from one file system to the other, or not on this one, or one of the two refuses: by hand it shows which.
            Err(_) => return copy_by_hand(from, to, read_at..range.end, go_on),
        }
    }
    Ok(true)
}

fn copy_by_hand(from: &File, to: &File, range: Range<u64>, go_on: &dyn Fn() -> bool) -> Result<bool, CopyFailure> {
    let (mut buffer, mut offset) = (vec![0; COPIED_BY_HAND], range.start);
    while offset < range.end {
        if !go_on() {
            return Ok(false);
        }
        let wanted = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = from.read_at(&mut buffer[..wanted], offset).map_err(CopyFailure::Read)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&buffer[..read], offset).map_err(CopyFailure::Write)?;
        offset += read as u64;
    }
    Ok(true)
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    let (zeros, mut offset) = (vec![0; COPIED_BY_HAND], range.start);
    while offset < range.end {
        let len = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..len], offset)?;
        offset += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file of 8 MiB with 100,000 bytes at 2 MiB and at its end.
    fn holed() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        for at in [2 * MIB, 8 * MIB - 100_000] {
            file.write_all_at(&[7; 100_000], at).unwrap();
        }
        file
    }

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn a_copy_has_the_same_bytes_and_the_same_holes() {
        let (file, dir) = (holed(), tempfile::tempdir().unwrap());
        // In memory, too, which is another file system where there is one.
        for place in [dir.path(), Path::new("/dev/shm")].into_iter().filter(|place| place.is_dir()) {
            let copy = tempfile::tempfile_in(place).unwrap();
            assert!(super::copy(&file, &copy, u64::MAX, &|| true).unwrap());
            assert_eq!(bytes(&copy), bytes(&file));
            assert!(is_sparse(&copy), "{place:?}: {:?}", copy.metadata());
        }
    }

    #[test]
    fn no_more_is_copied_than_was_asked_for_and_it_stops_when_told() {
        let file = holed();
        let copy = tempfile::tempfile().unwrap();
        assert!(super::copy(&file, &copy, 2 * MIB + 5, &|| true).unwrap());
        assert_eq!(bytes(&copy), bytes(&file)[..2 * MIB as usize + 5]);
        let other = tempfile::tempfile().unwrap();
        if rustix::fs::ioctl_ficlone(&other, &file).is_err() {
            assert!(!super::copy(&file, &other, u64::MAX, &|| false).unwrap());
        }
    }

    #[test]
    fn what_a_file_had_before_is_gone_when_it_is_a_copy() {
        let file = holed();
        let copy = tempfile::tempfile().unwrap();
        copy.write_all_at(&vec![9; 9 * MIB as usize], 0).unwrap();
        assert!(super::copy(&file, &copy, u64::MAX, &|| true).unwrap());
        assert!(bytes(&copy) == bytes(&file));
    }

    #[test]
    fn a_copy_that_fails_says_which_file_refuses_and_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        fs::write(path("from"), [7; 1000]).unwrap();
        fs::write(path("to"), [9; 1000]).unwrap();
        let unreadable = File::options().write(true).open(path("from")).unwrap();
        let copy = File::options().read(true).write(true).open(path("to")).unwrap();
        assert!(matches!(super::copy(&unreadable, &copy, u64::MAX, &|| true), Err(CopyFailure::Read(_))));
        assert_eq!(bytes(&copy), [9; 1000]);
        let (file, unwritable) = (File::open(path("from")).unwrap(), File::open(path("to")).unwrap());
        assert!(matches!(super::copy(&file, &unwritable, u64::MAX, &|| true), Err(CopyFailure::Write(_))));
    }

    #[test]
    fn a_range_that_is_cleared_is_zeros_and_takes_no_space_and_the_length_stays() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 4 * MIB as usize], 0).unwrap();
        clear(&file, MIB..MIB * 3).unwrap();
        clear(&file, MIB * 4 - 10..MIB * 9).unwrap();
        clear(&file, MIB * 20..MIB * 21).unwrap();
        let mut expected = vec![7; 4 * MIB as usize];
        expected[MIB as usize..3 * MIB as usize].fill(0);
        expected[4 * MIB as usize - 10..].fill(0);
        assert!(bytes(&file) == expected);
        assert!(is_sparse(&file));
        write_zeros(&file, 0..MIB).unwrap();
        assert!(bytes(&file)[..MIB as usize].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_file_without_holes_is_not_taken_for_one_with() {
        let dir = tempfile::tempdir().unwrap();
        for len in [0, 1, 4095, 70_000, 3 * MIB as usize + 1] {
            let path = dir.path().join(len.to_string());
            fs::write(&path, vec![1; len]).unwrap();
            let file = File::open(&path).unwrap();
            file.sync_all().unwrap();
            assert!(!is_sparse(&file), "{len}");
        }
        assert!(is_sparse(&holed()));
    }
}
