//! What a front end asks of a node, and what it is told: the one vocabulary of the command line, of `--json` and of
//! the local socket. Each value is one line of JSON.
//!
//! What it is not: how anything is done; see the sibling modules.

mod doctor;
mod node_address;
mod ping;
mod status;
mod turn;
mod wait;

use std::{path::PathBuf, time::Duration};

use keyferry_proto::{
    address::{Address, ShareName},
    hash::{ContentFormat, ContentHash},
};
use serde::{Deserialize, Serialize};

pub use self::{
    doctor::{
        Diagnosis, FamilyInfo, FilteringInfo, Finding, InterfaceInfo, MappingInfo, PortMappingInfo, Reach, SeenAddr,
        StunInfo, Verdict,
    },
    node_address::{NodeAddress, NodeAddressError},
    ping::{PairInfo, PingReply, PingStage, Pinged},
    status::{RelayInfo, Status, TrafficInfo},
    turn::TurnInfo,
    wait::{DEFAULT_WAIT, LOOK_FOR, Wait, WaitOver},
};
pub use crate::base::clock::ClockSkew;
use crate::base::{any_path, durations::seconds};
pub use crate::connect::trace::StageName;
pub use crate::content::store::{Audience, AudienceError, Excludes, ExcludesError, Invited, RootState};
pub use crate::net::path::info::{CandidateInfo, PathClass, PathEnd, PathInfo, PathStrategy};

/// One request of a front end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Import files or folders and put them into the catalogue. Paths are absolute.
    Share {
        /// What to share.
        #[serde(with = "any_path::list")]
        paths: Vec<PathBuf>,
        /// The name in the catalogue; by default the file name of the path. Only with a single path.
        name: Option<ShareName>,
        /// Copy into the data folder instead of serving in place.
        copy: bool,
        /// Whether the share follows its file or folder: a change makes a new version of the name.
        #[serde(default)]
        watch: bool,
        /// What of folders is not wanted.
        #[serde(default)]
        exclude: Excludes,
        /// Whether to refuse a folder of which something cannot be shared.
        #[serde(default)]
        strict: bool,
        /// To whom it is offered; none: to those to whom what had the name before was offered, or else everyone.
        #[serde(default)]
        audience: Option<Audience>,
    },
    /// Take a name out of the catalogue, and offer its content no more.
    Unshare {
        /// The name.
        name: ShareName,
    },
    /// End every offer of a content, under whatever name.
    Withdraw {
        /// Its hash.
        hash: ContentHash,
    },
    /// Fetch what an address names.
    Get {
        /// The address; it names a file or a folder, not only a node.
        address: Address,
        /// The folder to put it in (absolute).
        #[serde(with = "any_path")]
        out_dir: PathBuf,
        /// The name for it there; by default the one that it comes with.
        #[serde(default)]
        name: Option<String>,
        /// Whether existing files may be replaced.
        overwrite: bool,
        /// Whether to wait until it is on the disk.
        #[serde(default)]
        sync: bool,
        /// Whether to offer it to others afterwards, by its hash.
        #[serde(default)]
        seed: bool,
        /// How long to wait for whoever has it, if they are away.
        #[serde(default)]
        wait: Wait,
    },
    /// Stream the bytes of one file that an address names, in order and verified, to whoever listens at a Unix socket.
    Read {
        /// The address; it names a file.
        address: Address,
        /// The socket (absolute).
        outlet: PathBuf,
        /// How long to wait for whoever has it, if they are away.
        #[serde(default)]
        wait: Wait,
    },
    /// List the catalogue of a node.
    List {
        /// The node.
        node: NodeAddress,
    },
    /// Reach a node, and tell of every step on the way and how long it took.
    Ping {
        /// The node.
        node: NodeAddress,
        /// How many round trips to measure once it is reached.
        count: u32,
    },
    /// Describe this machine's place in the network, and how others can reach it.
    Doctor,
    /// Describe the running node.
    Status,
    /// List what this node offers, to whom, and who has fetched it.
    Shares,
    /// List what the store holds.
    StoreList,
    /// Drop a root from the store (files that it is served from in place are left alone).
    StoreRemove {
        /// A name, or a content hash, as text.
        what: String,
    },
    /// Read everything again and compare it with its hash.
    StoreVerify,
    /// Remove what no root refers to.
    StoreGc,
}

/// What a front end is told while a command runs. The last event is the command's result or [`Event::Failed`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The public key of this data folder: the result of `id`.
    Identity {
        /// The node key, as text.
        node: String,
    },
    /// Something worth a line that is not the result.
    Notice {
        /// The line.
        message: String,
    },
    /// How far an import has come.
    Importing {
        /// Bytes hashed so far.
        done_bytes: u64,
        /// Bytes to hash in all.
        total_bytes: u64,
        /// Files finished so far.
        done_files: u64,
        /// Files in all.
        total_files: u64,
    },
    /// A path is in the catalogue now. One for each path of `share`; the last one ends the command.
    Shared(Shared),
    /// A name has left the catalogue.
    Unshared {
        /// The name.
        name: ShareName,
    },
    /// A content is offered to nobody any more.
    Withdrawn {
        /// Its hash.
        hash: ContentHash,
    },
    /// What `get` is doing before bytes flow.
    Stage {
        /// In words: "looking up 12D3…", "connecting", …
        message: String,
    },
    /// A connection was made.
    Connected(PathInfo),
    /// A connection that a fetch used has ended before the fetch.
    Disconnected(PathEnd),
    /// How far a fetch has come. Counts verified bytes only, those of an earlier run included.
    Fetching {
        /// Verified bytes so far.
        done_bytes: u64,
        /// Bytes in all, once known.
        total_bytes: u64,
        /// Files finished so far.
        done_files: u64,
        /// Files in all, once known.
        total_files: u64,
    },
    /// A fetch has nobody to ask, and waits: told when that begins, and after each try that led to nobody.
    Waiting(Waiting),
    /// A file of a folder that is being fetched is not to be had; the rest is in its place.
    Missing(MissingInfo),
    /// A fetch is complete.
    Fetched(Fetched),
    /// One entry of a catalogue.
    Entry(Entry),
    /// The catalogue has been listed.
    Listed {
        /// How many entries it has.
        count: u64,
    },
    /// One step on the way to a node.
    PingStage(PingStage),
    /// One round trip over the session.
    PingReply(PingReply),
    /// The node was reached.
    Pinged(Pinged),
    /// How others can reach this machine: the result of `doctor`.
    Diagnosed(Box<Diagnosis>),
    /// The state of the node.
    Status(Box<Status>),
    /// A file that this node shares was asked for, and cannot be served. Each is told once, until what is shared changes.
    Unserved(UnservedInfo),
    /// A share that follows its folder has a new version.
    Renewed(RenewedInfo),
    /// All bytes of a file were read: the result of `get -o -`.
    Streamed {
        /// Its hash.
        hash: ContentHash,
        /// Its size in bytes.
        size: u64,
    },
    /// Something that this node offers.
    Share(ShareInfo),
    /// What this node offers has been listed.
    Shares {
        /// How much there is.
        count: u64,
    },
    /// One root of the store.
    Root(RootInfo),
    /// The roots have been listed.
    Roots {
        /// How many there are.
        count: u64,
    },
    /// A root was dropped.
    Removed {
        /// Its hash.
        hash: ContentHash,
    },
    /// How far a verification has come.
    Verifying {
        /// Bytes read so far.
        done_bytes: u64,
        /// Bytes to read in all.
        total_bytes: u64,
    },
    /// Something in the store is not what it should be.
    Damaged {
        /// The blob.
        hash: ContentHash,
        /// Where it should be.
        path: PathBuf,
        /// What is wrong, in words.
        problem: String,
    },
    /// A verification is complete.
    Verified {
        /// Blobs that are sound.
        sound: u64,
        /// Blobs that are not; each was reported by [`Event::Damaged`].
        damaged: u64,
    },
    /// A garbage collection is complete.
    Collected {
        /// Files removed.
        files: u64,
        /// Bytes freed.
        bytes: u64,
    },
    /// One contact.
    Contact(ContactInfo),
    /// The contacts have been listed.
    Contacts {
        /// How many there are.
        count: u64,
    },
    /// A contact was added, or has another name.
    ContactAdded(ContactInfo),
    /// A contact was removed.
    ContactRemoved(ContactInfo),
    /// The command failed.
    Failed(Failure),
}

impl Event {
    /// The event as one line of JSON, without the end of the line.
    ///
    /// A path that is not Unicode has no form in JSON; a notice that says so stands in for its event.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_else(|error| {
            serde_json::json!({ "event": "notice", "message": format!("cannot be written as JSON: {error}") })
                .to_string()
        })
    }

    /// Whether a command may end with this event: it is a result, or the failure in its place.
    pub fn is_result(&self) -> bool {
        match self {
            Event::Identity { .. }
            | Event::Shared(_)
            | Event::Unshared { .. }
            | Event::Withdrawn { .. }
            | Event::Fetched(_)
            | Event::Streamed { .. }
            | Event::Listed { .. }
            | Event::Pinged(_)
            | Event::Diagnosed(_)
            | Event::Status(_)
            | Event::Shares { .. }
            | Event::Roots { .. }
            | Event::Removed { .. }
            | Event::Verified { .. }
            | Event::Collected { .. }
            | Event::Contacts { .. }
            | Event::ContactAdded(_)
            | Event::ContactRemoved(_)
            | Event::Failed(_) => true,
            Event::Notice { .. }
            | Event::Importing { .. }
            | Event::Stage { .. }
            | Event::Connected(_)
            | Event::Disconnected(_)
            | Event::Fetching { .. }
            | Event::Waiting(_)
            | Event::Missing(_)
            | Event::Unserved(_)
            | Event::Renewed(_)
            | Event::Entry(_)
            | Event::PingStage(_)
            | Event::PingReply(_)
            | Event::Share(_)
            | Event::Root(_)
            | Event::Verifying { .. }
            | Event::Damaged { .. }
            | Event::Contact(_) => false,
        }
    }
}

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

/// Why a command failed: one line, and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// One line that says what is wrong.
    pub message: String,
    /// What to do next, if that is known.
    pub advice: Option<String>,
}

impl Failure {
    /// A failure with one line that says what is wrong.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn try_to(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Whose fault a failure is. Each has its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command was not understood or asks for what is not there (exit code 2).
    Usage,
    /// The peer or the network (exit code 3).
    Network,
    /// This machine: disk, permissions, files (exit code 4).
    Local,
    /// It was interrupted (exit code 130).
    Interrupted,
}

impl FailureKind {
    /// The exit code of a command that failed in this way.
    pub const fn exit_code(self) -> u8 {
        match self {
            FailureKind::Usage => 2,
            FailureKind::Network => 3,
            FailureKind::Local => 4,
            FailureKind::Interrupted => 130,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyferry_proto::hash::{ContentFormat, ContentHash};

    use super::{Event, Fetched};

    #[test]
    fn durations_are_numbers_of_seconds() {
        let took = Duration::from_millis(1500);
        let fetched = Fetched {
            hash: ContentHash::EMPTY,
            format: ContentFormat::Blob,
            path: "/tmp/x".into(),
            was_there: false,
            seeded: false,
            size: 0,
            files: 1,
            received_bytes: 0,
            resumed_bytes: 0,
            from: Vec::new(),
            took,
            first_byte: None,
        };
        let line = serde_json::to_value(Event::Fetched(fetched)).unwrap();
        assert_eq!((&line["took_seconds"], &line["first_byte_seconds"]), (&1.5.into(), &serde_json::Value::Null));
        let Event::Fetched(read) = serde_json::from_value(line).unwrap() else { panic!("another event") };
        assert_eq!(read.took, took);
    }
}
