//! Keyferry: share and fetch files by public key, from machine to machine.
//!
//! A [`Node`] has a key, which people exchange. Whoever has an [`Address`] of what it shares can fetch that, through any NAT:
//!
//! ```no_run
//! # async fn example() -> Result<(), keyferry::Error> {
//! let node = keyferry::Node::builder("data-folder").spawn().await?;
//! let shared = node.share("holiday.mp4").await?;
//! println!("keyferry get {}", shared.address);
//!
//! let address: keyferry::Address = "keyferry:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/film".parse()?;
//! let fetched = node.get(&address).to("downloads").await?;
//! println!("{} from {}", fetched.path.display(), fetched.from[0].path.description);
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! | want                                   | see                                                              |
//! |----------------------------------------|------------------------------------------------------------------|
//! | a node with other than default options | [`Node::builder`], [`config`]                                    |
//! | progress, and the path that was taken  | [`Share::updates`], [`GetTo::updates`]                           |
//! | bytes rather than files                | [`Get::bytes`], [`Get::reader`]                                  |
//! | to wait for a node that is away, or not | [`Get::wait`], [`Wait`]                                        |
//! | connections of a protocol of your own  | [`Node::listen`], [`Node::connect`]                              |
//! | to stop something                      | drop its future or stream: what is verified stays                |
//! | what went wrong                        | [`Error`]: matchable, and whose fault it is                      |
//! | the state of the node                  | [`Node::status`]                                                 |
//! | a data folder without a node on it     | [`data_dir`]                                                     |
//! | to drive a node in another process     | [`control`]: the commands and events of the program              |
//!
//! All futures here are `Send`, and need a tokio runtime with several threads, time and I/O.
//!
//! Features, all on by default: `turn-server` (relaying for others), `mdns` (finding nodes on the local network), `port-mapping`
//! (asking the router for a port).
//!
//! The floors of the house, from the top; imports go downwards only. They are private; the feature `internals`, which promises
//! nothing, opens them to the tests and simulations of this repository.
//!
//! | floor       | what it is                                                                                         |
//! |-------------|----------------------------------------------------------------------------------------------------|
//! | `node`      | a whole node: put together, announced, driven by commands that it answers with events              |
//! | `connect`   | who connects to whom: callers, callees, crossing calls, ICE, the sessions that stand               |
//! | `reach`     | where nodes are: candidates of our own, offers of others, TURN servers, and being one              |
//! | `content`   | what is shared: the store, and moving files over sessions                                          |
//! | `net`       | the port, paths of bytes, and the sessions on them                                                 |
//! | `base`      | what everything stands on: the clock, files, the data folder                                       |

// Without `internals` nobody outside reaches what is public on the floors, and some of it only the tests of this repository use.
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub, unused_imports, dead_code))]

#[cfg(not(feature = "internals"))]
mod base;
#[cfg(feature = "internals")]
pub mod base;
#[cfg(not(feature = "internals"))]
mod connect;
#[cfg(feature = "internals")]
pub mod connect;
#[cfg(not(feature = "internals"))]
mod content;
#[cfg(feature = "internals")]
pub mod content;
#[cfg(not(feature = "internals"))]
mod net;
#[cfg(feature = "internals")]
pub mod net;
#[cfg(not(feature = "internals"))]
mod node;
#[cfg(feature = "internals")]
pub mod node;
#[cfg(not(feature = "internals"))]
mod reach;
#[cfg(feature = "internals")]
pub mod reach;

pub use keyferry_proto::{
    address::{Address, AddressError, AddressTarget, NameError, ShareName},
    hash::{ContentFormat, ContentHash},
    identity::{NodeKey, NodeSecret},
    message::{ProtocolName, ProtocolNameError},
};
pub use libp2p::Multiaddr;

pub use self::connect::protocols::{Connection, Listener, MAX_CONNECTIONS_OF_SESSION, MAX_WAITING};
pub use self::node::{
    ContentReader, Error, Get, GetTo, MAX_BYTES, Node, NodeBuilder, NodeConfig, Offence, Progress, Share, Update,
    api::{
        Audience, AudienceError, DEFAULT_WAIT, Entry, Excludes, ExcludesError, Fetched, Invited, LOOK_FOR, NodeAddress,
        NodeAddressError, PathClass, PathInfo, PathStrategy, Shared, SourceInfo, Status, Wait, Waiting,
    },
};

pub mod error {
    //! What the variants of [`Error`](crate::Error) hold: one type for each boundary.

    pub use keyferry_proto::{catalogue::EntryError, message::Refusal};

    pub use crate::{
        base::data_dir::{ContactsError, HomeError},
        connect::connector::FindError,
        content::{
            store::StoreError,
            transfer::{FetchError, Incomplete, MissingFile, ProviderError},
        },
        net::{
            port::PortError,
            session::{ReadError, SessionError},
        },
        node::{NobodyThere, api::WaitOver},
        reach::{
            gather::GatherError,
            rendezvous::RendezvousError,
            turn_client::{ProxyError, UriError},
            turn_server::RelayError,
        },
    };
}

pub mod config {
    //! What a node can be told when it is set up.

    pub use keyferry_net::ip::Network;
    #[cfg(feature = "turn-server")]
    pub use keyferry_turn::server::RelayLimits;

    pub use crate::reach::turn_server::RelayConfig;
    #[cfg(feature = "turn-server")]
    pub use crate::reach::turn_server::{PortRange, Rates, RelayUser};
    pub use crate::{
        base::{data_dir::AdmissionPolicy, secret_text::SecretText},
        net::path::RelayMode,
        reach::gather::StunServer,
    };
}

pub mod data_dir {
    //! The data folder of a node: its key, and the contacts of its owner.

    pub use crate::base::atomic_file::TEMPORARY_PREFIX;
    pub use crate::base::data_dir::{
        Contact, ContactList, ContactName, ContactsError, ContactsFile, HOME_VARIABLE, Home, HomeError, LineProblem,
        MAX_CONTACTS,
    };
}

pub mod control {
    //! Commands and events, as the program, its `--json` and the socket in the data folder use them.

    pub use crate::base::umask::Umask;
    pub use crate::content::transfer::placement::{Placement, PlacementError};
    pub use crate::node::{
        MAX_PINGS,
        api::{
            CandidateInfo, ChangeCounts, ChangeInfo, ChangeKind, ClockSkew, Command, Compared, ContactInfo,
            Destination, Diagnosis, Event, Failure, FailureKind, FamilyInfo, FetcherInfo, FilteringInfo, Finding,
            FolderEntry, FolderEntryKind, InterfaceInfo, MappingInfo, MissingInfo, PairInfo, PingReply, PingStage,
            Pinged, PortMappingInfo, Reach, RelayInfo, RenewedInfo, RootInfo, RootState, SameKeyInfo, SameKeySeen,
            SeenAddr, ShareInfo, StageName, StunInfo, TrafficInfo, TurnInfo, UnservedFault, UnservedInfo, Verdict,
        },
        local::{LocalClient, LocalError, LocalServer, MAX_CONNECTIONS, MAX_LINE, NetworkTerms, SOCKET_NAME, Tenure},
        runner::{EVENT_QUEUE, Runner},
    };
}
