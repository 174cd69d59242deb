//! Files that are this user's alone, and no links.

use std::{fs, io, os::unix::fs::MetadataExt as _};

use rustix::fs::OFlags;

/// Whether this user made it.
pub(super) fn is_own(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Whether this user made a file, which has no name elsewhere.
pub(super) fn is_own_file(metadata: &fs::Metadata) -> bool {
    is_own(metadata) && metadata.nlink() == 1 && metadata.is_file()
}

/// Opens no link.
pub(super) const NO_LINK: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Whether something was not opened because it is a symbolic link.
pub(super) fn is_link(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}
