//! What is told of content: shared, sought, fetched, listed and offered.

use std::{path::PathBuf, time::Duration};

use keyferry_proto::{
    address::{Address, ShareName},
    hash::{ContentFormat, ContentHash},
};
use serde::{Deserialize, Serialize};

use crate::{
    base::{any_path, durations::seconds},
    content::store::{Audience, RootState},
    net::path::info::PathInfo,
};

/// The result of sharing one path.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shared {
    /// The name in the catalogue.
    pub name: ShareName,
    /// The root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// To whom it is offered.
    pub audience: Audience,
    /// `keyferry:NODE/NAME`.
    pub address: Address,
    /// The same with `?via=` hints, which works without a DHT.
    pub address_with_hints: Address,
}

/// Whom a fetch waits for, and how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// The key of the node, or the hash of the content if any provider will do, as text.
    #[serde(rename = "for")]
    pub whom: String,
    /// The node's name, if it is a contact.
    pub contact: Option<String>,
    /// Why nobody is there, in words.
    pub reason: String,
    /// Since when: seconds since 1970 (UTC).
    pub since: u64,
    /// When the fetch gives up: seconds since 1970 (UTC); none if never.
    pub until: Option<u64>,
    /// How long it has waited so far.
    #[serde(rename = "waited_seconds", with = "seconds")]
    pub waited: Duration,
    /// How long it will still wait; none for ever.
    #[serde(rename = "left_seconds", with = "seconds::optional")]
    pub left: Option<Duration>,
    /// From now until the next try; zero if one is under way.
    #[serde(rename = "next_try_seconds", with = "seconds")]
    pub next_try: Duration,
}

/// The result of a fetch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fetched {
    /// The root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Where it is now.
    pub path: PathBuf,
    /// Whether all of it was there before, so that nothing was done.
    #[serde(default)]
    pub was_there: bool,
    /// What was done with a folder that was there before.
    #[serde(default)]
    pub changes: ChangeCounts,
    /// Whether it is offered to others from there now.
    #[serde(default)]
    pub seeded: bool,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes that came over the network in this run.
    pub received_bytes: u64,
    /// Bytes that were there already, verified.
    pub resumed_bytes: u64,
    /// From whom it came, and how; who gave most comes first. One that was reached by several paths is there with each.
    pub from: Vec<SourceInfo>,
    /// The whole time of the command.
    #[serde(rename = "took_seconds", with = "seconds")]
    pub took: Duration,
    /// From the start of the command until the first verified byte; none if nothing had to be fetched.
    #[serde(rename = "first_byte_seconds", with = "seconds::optional")]
    pub first_byte: Option<Duration>,
}

/// What a fetch would do: the result of a dry run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Compared {
    /// The root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Where it would be.
    #[serde(with = "any_path")]
    pub path: PathBuf,
    /// Bytes of content in all; none of a file whose size nobody has signed.
    pub size: Option<u64>,
    /// Files in it.
    pub files: u64,
    /// Bytes that are not on this machine, at the most: of a file that has changed, less may have to come.
    pub missing_bytes: Option<u64>,
    /// What would be changed.
    pub changes: ChangeCounts,
}

/// How much a version changes of what is at its target: files and links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// What was not there.
    pub added: u64,
    /// What took the place of something else.
    pub replaced: u64,
    /// What an earlier version had there, and is there still.
    pub gone: u64,
    /// What an earlier version had there, and is there no more.
    pub removed: u64,
    /// What is its owner's, and stays in the place of something else.
    pub kept: u64,
}

/// Something that a version changes at its target, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeInfo {
    /// Its path in the folder; of a file on its own, its name.
    pub path: String,
    /// What becomes of it.
    pub change: ChangeKind,
}

/// What becomes of a file or a link at the target of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It takes the place of something else.
    Replaced,
    /// The version does not have it any more; it stays.
    Gone,
    /// The version does not have it any more; it is removed.
    Removed,
    /// It is its owner's, and stays in the place of something else.
    Kept,
}

/// A file of a folder that nobody gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInfo {
    /// Its path in the folder.
    pub path: String,
    /// Why not, in words.
    pub why: String,
}

/// A file that this node shares and cannot serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnservedInfo {
    /// The file.
    pub path: PathBuf,
    /// The name of the share that it was asked for with; none if it is seeded.
    pub name: Option<ShareName>,
    /// What is wrong with it.
    pub fault: UnservedFault,
    /// What the operating system said, or what else there is to know, if it is unreadable.
    pub detail: Option<String>,
}

/// Why a file cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnservedFault {
    /// Its content is another one than was shared.
    Changed,
    /// It is not there.
    Gone,
    /// It cannot be read now.
    Unreadable,
}

/// The new version of a share that follows its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewedInfo {
    /// The name in the catalogue.
    pub name: ShareName,
    /// The new root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
}

/// From whom something was fetched, and by which path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// The node and the path.
    #[serde(flatten)]
    pub path: PathInfo,
    /// Bytes of content that were kept.
    pub bytes: u64,
}

/// One entry of a catalogue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: ShareName,
    /// The root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
}

/// Something in a folder that is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderEntry {
    /// Its name, as people read it.
    pub name: String,
    /// What it is.
    pub kind: FolderEntryKind,
    /// Bytes in it; none in a link.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// When it was last changed, in nanoseconds since 1970; a link has no time.
    pub modified_nanos: Option<i64>,
    /// Whether somebody may execute it.
    pub executable: bool,
    /// What a link leads to.
    pub target: Option<String>,
}

/// What is in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderEntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// One root of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RootInfo {
    /// Whether it is offered, under which name, and to whom.
    #[serde(flatten)]
    pub state: RootState,
    /// The root hash.
    pub hash: ContentHash,
    /// A file or a folder.
    pub format: ContentFormat,
    /// Bytes of content in all.
    pub size: u64,
    /// Files in it.
    pub files: u64,
    /// Where the content is: the place it is served from, or none if it is a copy in the data folder.
    pub path: Option<PathBuf>,
    /// Whether a change of it makes a new version by itself.
    #[serde(default)]
    pub followed: bool,
}

impl RootInfo {
    /// Its name in the catalogue, if it is shared.
    pub fn name(&self) -> Option<&ShareName> {
        match &self.state {
            RootState::Shared { name, .. } => Some(name),
            RootState::Seeded | RootState::Kept => None,
        }
    }
}

/// Something that a node offers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShareInfo {
    /// What it is, and to whom it is offered.
    #[serde(flatten)]
    pub root: RootInfo,
    /// Those contacts whom it is offered to by their key.
    pub named_contacts: Vec<ContactInfo>,
    /// Who was sent how much of this content, under whatever name; who got most comes first.
    pub fetched: Vec<FetcherInfo>,
}

/// Who was sent how much of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetcherInfo {
    /// The node's key, as text; none for all together who are not counted one by one, or had no more than the hash.
    pub node: Option<String>,
    /// The node's name, if it is a contact.
    pub contact: Option<String>,
    /// Bytes, proofs and all.
    pub bytes: u64,
    /// When the last of them were sent: seconds since 1970 (UTC).
    pub last: u64,
}

/// A node that the user knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactInfo {
    /// Its key, as text.
    pub node: String,
    /// Its name.
    pub name: String,
}
