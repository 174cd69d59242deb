//! What is carried of files and folders besides what is in them, as this machine has it.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use keyferry_proto::collection::{FileAttributes, FileTime, FolderAttributes};

/// What is carried of a file besides its bytes.
pub(super) fn file_attributes(metadata: &Metadata) -> FileAttributes {
    let executable = metadata.mode() & 0o111 != 0;
    FileAttributes { modified: modified(metadata), executable, private: is_private(metadata) }
}

pub(super) fn folder_attributes(metadata: &Metadata) -> FolderAttributes {
    FolderAttributes { modified: modified(metadata), private: is_private(metadata) }
}

fn modified(metadata: &Metadata) -> FileTime {
    FileTime(metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()))
}

fn is_private(metadata: &Metadata) -> bool {
    metadata.mode() & 0o077 == 0
}
