//! Why a node could not do what it was asked: one type, to match on, with the cause behind it.
//!
//! What it is not: the line and the advice for a terminal (`failure`).

use std::{path::PathBuf, time::Duration};

use keyferry_proto::{
    address::{Address, AddressError, NameError, ShareName},
    catalogue::EntryError,
    hash::ContentHash,
    identity::NodeKey,
    message::{ProtocolName, Refusal},
};

use super::api::{NodeAddressError, WaitOver};
use crate::{
    base::data_dir::{ContactsError, HomeError},
    connect::connector::FindError,
    content::{store::StoreError, transfer::FetchError},
    net::{
        port::PortError,
        session::{ReadError, SessionError},
    },
    reach::{
        gather::GatherError,
        rendezvous::RendezvousError,
        turn_client::{ProxyError, UriError},
        turn_server::RelayError,
    },
};

/// Why a node could not do what it was asked. Each group says whose fault it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller: the text is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The caller: the text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The caller: there is nothing to fetch at an address of a whole node.
    #[error("the address names a node, but nothing that it shares")]
    NamesNothing {
        /// The address.
        address: Address,
    },
    /// The caller: the text names no node.
    #[error(transparent)]
    NodeAddress(#[from] NodeAddressError),
    /// The caller: a name is of no use without the node in whose catalogue it stands.
    #[error("a name needs a node key in front of it")]
    NameWithoutNode,
    /// The caller: this node is no peer of itself.
    #[error("that is the key of this node itself")]
    OwnKey,
    /// The caller: this node is no peer of itself, and the other node that runs with its key is none either.
    #[error("that is the key of this node itself, and another running node has it, too")]
    SameKey,
    /// The caller: a name that stands for something else already, here or among what is to be shared.
    #[error("{} and {} would both be shared as {name}", first.display(), second.display())]
    NameTaken {
        /// The name.
        name: ShareName,
        /// What has it.
        first: PathBuf,
        /// What would have it, too.
        second: PathBuf,
    },
    /// The caller: the path ends in nothing that could be a name.
    #[error("{} has no name that can be shared", path.display())]
    NoShareName {
        /// The path.
        path: PathBuf,
    },
    /// The caller or this machine: a path that cannot be made absolute.
    #[error("{}: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The caller: it cannot be the name of a file in a folder.
    #[error("{name:?} is not the name of one file or folder")]
    NoFileName {
        /// What was given for one.
        name: String,
    },
    /// The caller: one name for several paths.
    #[error("--name goes with a single path")]
    OneNameForMany,
    /// The caller: the catalogue of this node has no such name.
    #[error("this node shares nothing as {name}")]
    NotSharedHere {
        /// The name.
        name: ShareName,
    },
    /// The caller: this node does not offer the content.
    #[error("this node does not offer {hash}")]
    NotOfferedHere {
        /// Its hash.
        hash: ContentHash,
    },
    /// The caller: the store has no such root.
    #[error("the store has no {what}")]
    NotStored {
        /// A name or a hash, as it was given.
        what: String,
    },
    /// The caller: the content is a folder, where a single file is needed.
    #[error("{address} is a folder")]
    IsAFolder {
        /// The address.
        address: Address,
    },
    /// The caller: the content is a file, where a folder is needed.
    #[error("{address} is a file")]
    IsAFile {
        /// The address.
        address: Address,
    },
    /// The caller: a part of a folder is nothing that could be offered by a hash.
    #[error("{address} is a part of a folder, which cannot be offered to others from here")]
    PartNotOffered {
        /// The address.
        address: Address,
    },
    /// The caller: the content is larger than what goes into memory at once.
    #[error("the content has {got} bytes, more than the {limit} that are taken into memory")]
    TooLarge {
        /// Its size in bytes.
        got: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The caller: somebody listens for this protocol already.
    #[error("this node listens for {protocol} already")]
    ProtocolTaken {
        /// The protocol.
        protocol: ProtocolName,
    },
    /// The caller: the node was started without a network.
    #[error("this needs the network, and the node is offline")]
    Offline,
    /// The caller: a proxy for TURN servers that is none.
    #[error("the proxy for relays: {0}")]
    Proxy(#[from] ProxyError),
    /// The caller: a TURN server that is none.
    #[error("a relay cannot be used: {0}")]
    TurnServer(#[from] UriError),
    /// The caller: it was stopped.
    #[error("interrupted")]
    Interrupted,
    /// The caller: whoever read the bytes of a file has gone.
    #[error("nobody reads it any more")]
    NobodyReads,
    /// This machine: the data folder, or the key in it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// This machine or the caller: the contacts.
    #[error(transparent)]
    Contacts(#[from] ContactsError),
    /// This machine: the port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// This machine, mostly: the content store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This machine: the node's certificate.
    #[error("the node's certificate cannot be made: {0}")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The caller: the build lacks what was asked for.
    #[error(transparent)]
    Gather(#[from] GatherError),
    /// This machine: the part in the DHT.
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    /// This machine, or the configuration: the TURN server.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// This program: a task ended unexpectedly.
    #[error("internal error: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// The network or the peer: no session.
    #[error(transparent)]
    Connect(#[from] FindError),
    /// The network or the peer: the content did not come.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The network or the peer: nobody who has the content came in the time that they were given.
    #[error("{why}{over}")]
    NobodyCame {
        /// Why nobody is there.
        #[source]
        why: Box<NobodyThere>,
        /// How long they were waited for.
        over: WaitOver,
    },
    /// The network or the peer: the session is over.
    #[error("the connection was lost: {0}")]
    Lost(#[from] SessionError),
    /// The network or the peer: a stream broke.
    #[error("the connection was lost: {0}")]
    StreamLost(#[from] std::io::Error),
    /// The peer: it does not answer.
    #[error("no answer within {} s", within.as_secs())]
    NoAnswer {
        /// How long it had.
        within: Duration,
    },
    /// The network: a path that carried a session and carries nothing now.
    #[error("the path was there, and no longer answers: nothing for {} s", within.as_secs())]
    PathSilent {
        /// How long nothing came.
        within: Duration,
    },
    /// The peer: it shares nothing under this name.
    #[error("{} shares nothing as {name}", node.short())]
    NotSharedThere {
        /// The peer.
        node: NodeKey,
        /// The name.
        name: ShareName,
    },
    /// The peer: it does not look the name up now.
    #[error("{} does not tell what {name} is: {why}", node.short())]
    NameRefused {
        /// The peer.
        node: NodeKey,
        /// The name.
        name: ShareName,
        /// What it says.
        why: Refusal,
    },
    /// The peer: it keeps its catalogue to itself.
    #[error("{} does not show its catalogue: {why}", node.short())]
    CatalogueRefused {
        /// The peer.
        node: NodeKey,
        /// What it says.
        why: Refusal,
    },
    /// The peer: its version knows no protocols of applications.
    #[error("{} runs a version of keyferry without protocols of applications", node.short())]
    ProtocolUnknown {
        /// The peer.
        node: NodeKey,
    },
    /// The peer: it takes no stream of this protocol.
    #[error("{} does not take {protocol}: {why}", node.short())]
    ProtocolRefused {
        /// The peer.
        node: NodeKey,
        /// The protocol.
        protocol: ProtocolName,
        /// What it says.
        why: Refusal,
    },
    /// The peer: an entry of its catalogue that it has not signed.
    #[error("an entry that {} did not sign: {source}", node.short())]
    Entry {
        /// The peer.
        node: NodeKey,
        /// What is wrong with it.
        source: EntryError,
    },
    /// The peer: it said what it should not.
    #[error("{} broke the protocol: {source}", node.short())]
    Broken {
        /// The peer.
        node: NodeKey,
        /// What it said.
        source: Offence,
    },
}

/// Why a fetch has nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum NobodyThere {
    /// The node was not reached.
    #[error(transparent)]
    NotReached(#[from] FindError),
    /// No provider was found, or those that were are gone.
    #[error(transparent)]
    NoProvider(#[from] FetchError),
}

/// What a peer said that it should not.
#[derive(Debug, thiserror::Error)]
pub enum Offence {
    /// What is no message.
    #[error(transparent)]
    Message(#[from] ReadError),
    /// Nothing, where an answer belongs.
    #[error("it ended the stream without an answer")]
    NoAnswer,
    /// An answer to another question.
    #[error("it answered with another name")]
    OtherName,
    /// A catalogue that ends before its end.
    #[error("the catalogue is incomplete")]
    Incomplete,
    /// A catalogue beyond any limit.
    #[error("a catalogue of more than {limit} entries")]
    TooManyEntries {
        /// The limit.
        limit: u64,
    },
}
