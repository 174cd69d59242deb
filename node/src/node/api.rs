//! What a front end asks of a node, and what it is told: the one vocabulary of the command line, of `--json` and of
//! the local socket. Each value is one line of JSON.
//!
//! What it is not: how anything is done; see the sibling modules.

mod content;
mod doctor;
mod failure;
mod node_address;
mod ping;
mod same_key;
mod status;
mod turn;
mod wait;

use std::path::PathBuf;

use keyferry_proto::{
    address::{Address, ShareName},
    hash::ContentHash,
};
use serde::{Deserialize, Serialize};

pub use self::{
    content::{
        ChangeCounts, ChangeInfo, ChangeKind, Compared, ContactInfo, Entry, Fetched, FetcherInfo, FolderEntry,
        FolderEntryKind, MissingInfo, RenewedInfo, RootInfo, ShareInfo, Shared, SourceInfo, UnservedFault,
        UnservedInfo, Waiting,
    },
    doctor::{
        Diagnosis, FamilyInfo, FilteringInfo, Finding, InterfaceInfo, MappingInfo, PortMappingInfo, Reach, SeenAddr,
        StunInfo, Verdict,
    },
    failure::{Failure, FailureKind},
    node_address::{NodeAddress, NodeAddressError},
    ping::{PairInfo, PingReply, PingStage, Pinged},
    same_key::{SameKeyInfo, SameKeySeen},
    status::{RelayInfo, Status, TrafficInfo},
    turn::TurnInfo,
    wait::{DEFAULT_WAIT, LOOK_FOR, Wait, WaitOver},
};
use crate::base::any_path;
pub use crate::base::clock::ClockSkew;
pub use crate::connect::trace::StageName;
pub use crate::content::{
    store::{Audience, AudienceError, Excludes, ExcludesError, Invited, RootState},
    transfer::destination::Destination,
};
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
        /// Whether the one path is a file in the data folder that was written to be shared, and is moved into the store.
        #[serde(default)]
        taken: bool,
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
        /// Where to put it, and how.
        #[serde(flatten)]
        place: Destination,
        /// Whether to tell only what would be done.
        #[serde(default)]
        dry_run: bool,
        /// How long to wait for whoever has it, if they are away.
        #[serde(default)]
        wait: Wait,
    },
    /// Stream the bytes of one file that an address names, in order and verified, to whoever listens at a Unix socket.
    Read {
        /// The address; it names a file.
        address: Address,
        /// The socket (absolute).
        #[serde(with = "any_path")]
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
    /// List what is in a folder that a node shares, or at a path in it.
    ListFolder {
        /// The address: of a name, or of a path in what it stands for.
        address: Address,
        /// How long to wait for whoever has it, if they are away.
        #[serde(default)]
        wait: Wait,
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

impl Command {
    /// Shares one path in place, under its own name, as it is shared already or else with everyone.
    pub fn share(path: PathBuf) -> Self {
        Self::Share {
            paths: vec![path],
            name: None,
            copy: false,
            taken: false,
            watch: false,
            exclude: Excludes::default(),
            strict: false,
            audience: None,
        }
    }

    /// Fetches into a folder, under the name that it comes with.
    pub fn get(address: Address, folder: PathBuf) -> Self {
        Self::Get { address, place: Destination::in_folder(folder), dry_run: false, wait: Wait::default() }
    }
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
    /// What becomes of a file at the target of a fetch, where that is worth a word; of each, in a dry run.
    Change(ChangeInfo),
    /// What a fetch would do: the result of `get --dry-run`.
    Compared(Compared),
    /// A fetch is complete.
    Fetched(Fetched),
    /// One entry of a catalogue.
    Entry(Entry),
    /// Something in a folder that is listed.
    FolderEntry(FolderEntry),
    /// The catalogue, or the folder, has been listed.
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
    /// Another running node has this node's key. Told once while both run.
    SameKey(SameKeyInfo),
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
            | Event::Compared(_)
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
            | Event::Change(_)
            | Event::Unserved(_)
            | Event::Renewed(_)
            | Event::SameKey(_)
            | Event::Entry(_)
            | Event::FolderEntry(_)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use keyferry_proto::hash::{ContentFormat, ContentHash};

    use super::{ChangeCounts, Event, Fetched};

    #[test]
    fn durations_are_numbers_of_seconds() {
        let took = Duration::from_millis(1500);
        let fetched = Fetched {
            hash: ContentHash::EMPTY,
            format: ContentFormat::Blob,
            path: "/tmp/x".into(),
            was_there: false,
            changes: ChangeCounts::default(),
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
