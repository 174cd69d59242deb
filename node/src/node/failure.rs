//! What goes wrong, in one line for the user, and what to do about it.
//!
//! What it is not: the exit code or the colours; see the command line.

use std::{io, path::Path};

use keyferry_proto::{
    address::{AddressError, AddressTarget, NameError},
    message::Refusal,
    signalling::CallRefusal as Refused,
};

use super::{
    Error, NobodyThere,
    api::{Command, Failure, FailureKind, NodeAddressError, Wait, WaitOver},
};
use crate::{
    base::{
        clock::span_in_words,
        data_dir::{ContactsError, HomeError},
    },
    connect::{
        connector::{FindError, OfferTime},
        signalling::CallError,
    },
    content::{
        store::StoreError,
        transfer::{FetchError, placement::PlacementError, staging::StagingError},
    },
    net::{port::PortError, session::SessionError},
};

/// What to do about a node, or this one, that has no place for one more.
const TRY_AGAIN: &str = "try again in a minute";

impl Failure {
    /// The user asked for what makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }

    /// Something on this machine.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Local, message)
    }

    /// The peer or the network.
    pub fn network(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Network, message)
    }

    /// The user stopped it.
    pub fn interrupted() -> Self {
        Self::new(FailureKind::Interrupted, "interrupted")
    }
}

impl Command {
    /// Checks what was typed, before a node is started for it.
    ///
    /// # Errors
    ///
    /// The same that carrying it out would end with.
    pub fn check(&self) -> Result<(), Failure> {
        match self {
            Command::Get { address, .. } | Command::Read { address, .. } | Command::ListFolder { address, .. }
                if matches!(address.target(), AddressTarget::Catalogue) =>
            {
                Err(Error::NamesNothing { address: address.clone() }.into())
            }
            _ => Ok(()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Address(error) => error.into(),
            Error::Name(error) => error.into(),
            Error::NodeAddress(error) => error.into(),
            Error::Home(error) => error.into(),
            Error::Contacts(error) => error.into(),
            Error::Port(error) => error.into(),
            Error::Store(error) => error.into(),
            Error::Connect(error) => error.into(),
            Error::Fetch(error) => error.into(),
            Error::NobodyCame { why, over } => nobody_came(message, *why, &over),
            Error::NamesNothing { address } => {
                Self::usage(message).try_to(format!("`keyferry ls {address}` lists what it shares"))
            }
            Error::OwnKey => Self::usage(message).try_to("the key of another node"),
            Error::SameKey => Self::usage(message)
                .try_to("stop one of them, move its identity.key away and start it again: it makes a key of its own"),
            Error::NameTaken { .. } => Self::usage(message)
                .try_to("share one of them with --name, or end the other share with `keyferry unshare`"),
            Error::NoShareName { .. } => Self::usage(message).try_to("give one with --name"),
            Error::OneNameForMany => Self::usage(message).try_to("share the paths one by one"),
            Error::NotSharedHere { .. } | Error::NotOfferedHere { .. } => {
                Self::usage(message).try_to("`keyferry store ls` lists what is")
            }
            Error::NotStored { .. } => Self::usage(message).try_to("`keyferry store ls` lists all"),
            Error::IsAFolder { .. } => Self::usage(message).try_to("-o FOLDER, where its files are to be written"),
            Error::IsAFile { .. } => Self::usage(message).try_to("`keyferry get` fetches it"),
            Error::PartNotOffered { .. } => {
                Self::usage(message).try_to("the whole folder with --seed, or this part without")
            }
            Error::NameWithoutNode
            | Error::Path { .. }
            | Error::NoFileName { .. }
            | Error::TooLarge { .. }
            | Error::ProtocolTaken { .. }
            | Error::Offline
            | Error::Proxy(_)
            | Error::Gather(_)
            | Error::TurnServer(_) => Self::usage(message),
            Error::Interrupted => Self::interrupted(),
            Error::NobodyReads => Self::new(FailureKind::Interrupted, message),
            Error::Tls(_) | Error::Rendezvous(_) | Error::Relay(_) | Error::Task(_) => Self::local(message),
            Error::NotSharedThere { node, .. } => {
                Self::network(message).try_to(format!("`keyferry ls {node}` lists what it shares"))
            }
            Error::Lost(why) if why.is_busy() => Self::network("that node is busy").try_to(TRY_AGAIN),
            Error::NameRefused { why: Refusal::Busy, .. }
            | Error::CatalogueRefused { why: Refusal::Busy, .. }
            | Error::ProtocolRefused { why: Refusal::Busy, .. } => Self::network(message).try_to(TRY_AGAIN),
            Error::Lost(_)
            | Error::StreamLost(_)
            | Error::NoAnswer { .. }
            | Error::PathSilent { .. }
            | Error::NameRefused { .. }
            | Error::CatalogueRefused { .. }
            | Error::ProtocolRefused { .. }
            | Error::ProtocolUnknown { .. }
            | Error::Entry { .. }
            | Error::Broken { .. } => Self::network(message),
        }
    }
}

/// What to do is what the cause says, and to wait, or to wait longer.
fn nobody_came(message: String, why: NobodyThere, over: &WaitOver) -> Failure {
    let cause = match why {
        NobodyThere::NotReached(error) => Failure::from(error),
        NobodyThere::NoProvider(error) => error.into(),
    };
    let wait = match (over.wait, over.is_known) {
        (Wait::None, _) => "without --wait none, it is waited for".to_owned(),
        (Wait::Known, false) => "with --wait 10m, also a node that was never there is waited for".to_owned(),
        _ => "--wait forever waits until somebody is there".to_owned(),
    };
    let advice = cause.advice.map_or_else(|| wait.clone(), |advice| format!("{advice}; {wait}"));
    Failure { message, advice: Some(advice), ..cause }
}

/// What to do is what the cause says, and to look at the clock over there.
fn beside_offer(failure: Failure, said: OfferTime, cause: Failure) -> Failure {
    let clock = match said {
        OfferTime::Ahead(by) => format!("have the clock of that node set, which is about {} ahead", span_in_words(by)),
        OfferTime::Expired(ago) => format!(
            "see whether that node is running, and whether its clock is behind: its offer expired {} ago",
            span_in_words(ago)
        ),
    };
    let advice = cause.advice.map_or_else(|| clock.clone(), |advice| format!("{clock}; {advice}"));
    Failure { message: failure.message, advice: Some(advice), ..cause }
}

impl From<NodeAddressError> for Failure {
    fn from(error: NodeAddressError) -> Self {
        match error {
            NodeAddressError::Address(error) => error.into(),
            NodeAddressError::NoNode => Self::usage(error.to_string()).try_to("give a node key, such as 12D3KooW…"),
        }
    }
}

impl From<ContactsError> for Failure {
    fn from(error: ContactsError) -> Self {
        match error {
            ContactsError::Name(_)
            | ContactsError::NameTaken { .. }
            | ContactsError::NoSuchContact { .. }
            | ContactsError::TooMany => Self::usage(error.to_string()),
            ContactsError::Line { .. } | ContactsError::File { .. } | ContactsError::Io { .. } => {
                Self::local(error.to_string())
            }
        }
    }
}

impl From<AddressError> for Failure {
    fn from(error: AddressError) -> Self {
        Self::usage(error.to_string())
            .try_to("an address looks like keyferry:12D3KooW…/NAME; `keyferry share` prints it whole")
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::usage(error.to_string()).try_to("another with --name")
    }
}

impl From<PortError> for Failure {
    fn from(error: PortError) -> Self {
        let failure = Self::local(error.to_string());
        match error {
            // It says what to do.
            PortError::InUse { .. } => failure,
            _ => failure.try_to("choose another address with --listen, such as --listen 0.0.0.0:0"),
        }
    }
}

impl From<HomeError> for Failure {
    fn from(error: HomeError) -> Self {
        Self::local(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Cancelled => Self::interrupted(),
            StoreError::NotFound { .. }
            | StoreError::NotShareable { .. }
            | StoreError::OwnDataFolder { .. }
            | StoreError::LeavesOut { .. } => Self::usage(message),
            StoreError::Folder { .. } => Self::usage(message).try_to("share parts of the folder, each on its own"),
            _ => Self::local(message),
        }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        (&error).into()
    }
}

impl From<&FindError> for Failure {
    fn from(error: &FindError) -> Self {
        let failure = Self::network(error.to_string());
        match error {
            FindError::OffTime { said, why } => beside_offer(failure, *said, Self::from(&**why)),
            FindError::OtherVersion { .. } => failure.try_to("use the same version of keyferry on both nodes"),
            FindError::NoOffer { clock: Some(_), .. } => {
                failure.try_to("set this machine's clock: by it, the offers of others have expired or are not yet made")
            }
            FindError::NoOffer { known_peers: 0, other_versions, .. } if !other_versions.is_empty() => {
                failure.try_to("use the same version of keyferry as the nodes of that network")
            }
            FindError::NoOffer { known_peers: 0, .. } => failure.try_to(
                "no other node answered: name one that is up with --bootstrap, or use the longer address with ?via= that \
                 `keyferry share` prints",
            ),
            FindError::NoOffer { .. } => {
                failure.try_to("check the key, and that `keyferry share` or `keyferry node` is running there")
            }
            FindError::Unreachable { why, .. } if why.not_there().is_some() => {
                failure.try_to("whoever is at that address does not answer as this node: check the key and its ?via= part, and that the clocks \
                 of both machines show the right day")
            }
            FindError::Unreachable { why: SessionError::NothingToDial { .. }, .. } => failure.try_to(
                "if you can reach that network, use the longer address with ?via= that `keyferry share` prints there",
            ),
            FindError::Unreachable { .. } | FindError::Unanswered { .. } => failure.try_to("check that the node is running and its port is open"),
            FindError::NotCalled { why: CallError::Refused(Refused::Policy), .. } => failure.try_to(
                "its owner can take you into the contacts there: `keyferry contacts add`, with the key that \
                 `keyferry id` shows here",
            ),
            FindError::NotCalled { why: CallError::Refused(Refused::Busy), .. } | FindError::Busy { .. } => {
                failure.try_to(TRY_AGAIN)
            }
            FindError::NotCalled { why: CallError::Refused(Refused::NoCommonStream), .. } => {
                failure.try_to("leave out --relay-only on one of the two nodes, or --no-relay on the other")
            }
            FindError::NotRelayed { .. } => {
                failure.try_to("name a relay with --turn, on one of the two nodes, or leave out --relay-only")
            }
            FindError::NotCalled { .. } => failure.try_to("check that the node is running there"),
            FindError::NotDirect { .. } => failure.try_to(
                "forward a TCP port to one of the two nodes (`keyferry doctor` shows which and what its NAT does), or \
                 switch on UPnP or PCP in its router",
            ),
            FindError::Interfaces(_) => Self::local(error.to_string()),
        }
    }
}

impl From<PlacementError> for Failure {
    fn from(error: PlacementError) -> Self {
        Self::usage(error.to_string()).try_to("a path with -o: a folder, or the file itself")
    }
}

/// What to do about a file that cannot be written; what was fetched so far lies in its part file or folder.
fn unwritable_advice(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let part = path.ancestors().find(|above| above.to_string_lossy().ends_with(".keyferry-part.d"));
            format!(
                "make room there, and run the same command again: it goes on from {}, which also serves in another folder if you \
                 move it there and name that with -o",
                part.unwrap_or(path).display()
            )
        }
        io::ErrorKind::FileTooLarge => "a folder on a file system for larger files, with -o".to_owned(),
        _ => "choose another folder with -o".to_owned(),
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::Target(StagingError::Exists { .. }) => {
                Self::usage(message).try_to("give another place with -o, or --overwrite to replace it")
            }
            FetchError::Target(StagingError::Clash { .. }) => {
                Self::usage(message).try_to("move it away, or give another folder with -o")
            }
            FetchError::Target(StagingError::Foreign { .. }) => {
                Self::usage(message).try_to("remove it, or give another folder with -o")
            }
            FetchError::Target(StagingError::Busy { .. }) => Self::usage(message).try_to("wait for it to end"),
            FetchError::Target(StagingError::NoRoom { .. }) => {
                Self::local(message).try_to("make room there, or choose another folder with -o")
            }
            FetchError::Target(StagingError::Io { path, source }) | FetchError::Disk { path, source } => {
                Self::local(message).try_to(unwritable_advice(&path, &source))
            }
            FetchError::Store(error) => error.into(),
            FetchError::Internal(_) | FetchError::Source(_) => Self::local(message),
            FetchError::NotInFolder { .. } => {
                Self::usage(message).try_to("`keyferry ls` with the address of the folder lists what is in it")
            }
            FetchError::IsALink { .. } => Self::usage(message).try_to("the path of what it leads to"),
            FetchError::Folder => Self::usage(message).try_to("fetch it into a folder"),
            FetchError::HostileManifest(_) => {
                Self::network(message).try_to("ask the sender to rename what is not portable and share it again")
            }
            FetchError::Layout(_) => Self::network(message).try_to("check the address: whoever signed this lied"),
            FetchError::Unavailable { why: Refusal::Changed | Refusal::Gone, .. } => {
                Self::network(message).try_to("ask the sender to share it again")
            }
            FetchError::Unavailable { why: Refusal::Unreadable, .. } => Self::network(message)
                .try_to("ask the sender, whose terminal says why; then run the same command again"),
            FetchError::Incomplete(_) => Self::network(message)
                .try_to("ask the sender to share it again, then the same command: what is there is not sent again"),
            FetchError::Kept(_) => Self::usage(message)
                .try_to("move them away, or --overwrite to replace them; everything else is in its place"),
            FetchError::Unavailable { why: Refusal::Busy, .. } => Self::network(message).try_to(TRY_AGAIN),
            FetchError::Unavailable { .. } | FetchError::NotFound { .. } => {
                Self::network(message).try_to("check the address, and that a provider is running")
            }
            FetchError::NoProvider { .. } => {
                Self::network(message).try_to("run the same command again: it goes on from what was verified")
            }
            FetchError::Interrupted => {
                Self::interrupted().try_to("run the same command again: it goes on from what was verified")
            }
        }
    }
}
