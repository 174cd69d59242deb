//! Credentials for TURN relays, over libp2p: what is asked and answered over `/keyferry/turn/1`.
//!
//! libp2p's request-response carries the messages; they go over direct connections only (`scope_filter`). Every stream has one
//! request and one reply, and a deadline; each connection has few streams; each peer and each host asks so often and no
//! more.
//!
//! What it is not: the relay, or a choice of relays ([`crate::reach::turn_discovery`]).

mod answering;
mod asking;
mod frames;

pub use self::{
    answering::{AnnouncedTo, CredentialIssuer, Requester, TurnService},
    asking::{AskAs, AskRelayError, Granted},
};
pub(super) use self::{
    answering::{Decided, RelayRequests, answer},
    asking::{ASK_TIMEOUT, AskReply, CredentialRequests, RelayAnswer, RelayLink, request},
    frames::{TurnEvent, TurnExchange, behaviour},
};
