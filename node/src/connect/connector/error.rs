//! Why there is no session with a node.
//!
//! What it is not: what to do about it (`node::failure`).

use std::{fmt, time::Duration};

use keyferry_ice::{FailureReason, PairReport};
use keyferry_proto::{identity::NodeKey, offer::OFFER_VERSION, signalling::CallRefusal};

use crate::{
    base::clock::{ClockSkew, span_in_words},
    connect::{
        ice::{IceError, IceFailure, TooManyNegotiations},
        signalling::CallError,
    },
    net::session::SessionError,
    reach::rendezvous,
};

/// Why there is no session with a node.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing is known of the node: no hint, and no offer in the DHT.
    #[error("no offer of {node} was found{}{}", met_others(other_versions), by_clock(clock.as_ref()))]
    NoOffer {
        /// The node.
        node: NodeKey,
        /// Peers in the routing tables, of both networks.
        known_peers: usize,
        /// Versions of the rendezvous that peers spoke and this program does not.
        other_versions: Vec<u32>,
        /// How wrong this machine's clock is, if others say that it is more than offers allow for.
        clock: Option<ClockSkew>,
    },
    /// The node's offer is one that this program does not read. One of the two programs is too old.
    #[error("the offer of {node} is of version {got}, this program reads version {OFFER_VERSION}")]
    OtherVersion {
        /// The node.
        node: NodeKey,
        /// The version of its offer.
        got: u8,
    },
    /// The node's addresses are known, but it was not reached.
    #[error("{node} was not reached: {why}")]
    Unreachable {
        /// The node.
        node: NodeKey,
        /// What became of each address.
        #[source]
        why: SessionError,
    },
    /// The node can only be called, and did not answer.
    #[error("{node} was not reached: {why}")]
    NotCalled {
        /// The node.
        node: NodeKey,
        /// What became of the last call.
        #[source]
        why: CallError,
    },
    /// The node's addresses are known, and it has not answered at any of them so far.
    #[error("{node} has not answered so far")]
    Unanswered {
        /// The node.
        node: NodeKey,
    },
    /// The node answered the call, and no direct path was found, and none through a relay. Nobody's fault but the NATs'.
    #[error("{node} was not reached directly: {reason}{}", nor_by_relay(relayed.as_ref()))]
    NotDirect {
        /// The node.
        node: NodeKey,
        /// Why.
        reason: IceFailure,
        /// Why not through a relay either, if that was tried.
        relayed: Option<IceFailure>,
        /// What was tried.
        pairs: Vec<PairReport>,
    },
    /// The node answered the call, only relays were allowed, and none led there.
    #[error("{node} was not reached through a relay: {reason}")]
    NotRelayed {
        /// The node.
        node: NodeKey,
        /// Why.
        reason: IceFailure,
        /// What was tried.
        pairs: Vec<PairReport>,
    },
    /// This node has too much to do.
    #[error("{node} was not called: {why}")]
    Busy {
        /// The node.
        node: NodeKey,
        /// What is too much.
        #[source]
        why: TooManyNegotiations,
    },
    /// The newest offer of the node is by a clock that is wrong, or of long ago, and it was not reached.
    #[error("{why}; {said}")]
    OffTime {
        /// What the offer says about that.
        said: OfferTime,
        /// Why it was not reached.
        #[source]
        why: Box<FindError>,
    },
    /// The interfaces of this machine could not be read.
    #[error("the network interfaces cannot be read: {0}")]
    Interfaces(#[from] std::io::Error),
}

/// What the newest offer of a node says about the clock by which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferTime {
    /// It is of a time to come: the clock is ahead by about this much.
    Ahead(Duration),
    /// It expired so long ago: the node has gone since, or the clock is behind.
    Expired(Duration),
}

impl fmt::Display for OfferTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(by) => write!(f, "by its offer, the clock of that node is about {} ahead", span_in_words(*by)),
            Self::Expired(ago) => write!(
                f,
                "its offer expired {} ago: it has gone since, or its clock is that much behind or more",
                span_in_words(*ago)
            ),
        }
    }
}

impl FindError {
    /// This, together with what the offer says about a clock, if it does.
    pub(super) fn beside(self, said: Option<OfferTime>) -> Self {
        match said {
            Some(said) => Self::OffTime { said, why: Box::new(self) },
            None => self,
        }
    }

    /// Whether it will be no different in some minutes: the node is there and takes no call, or no path leads there, or it speaks another
    /// version, or this machine cannot even try.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::OtherVersion { .. } | Self::NotDirect { .. } | Self::NotRelayed { .. } | Self::Interfaces(_) => true,
            Self::OffTime { why, .. } => why.is_final(),
            Self::NotCalled { why: CallError::Refused(why), .. } => *why != CallRefusal::Busy,
            Self::NoOffer { .. }
            | Self::Unreachable { .. }
            | Self::Unanswered { .. }
            | Self::NotCalled { .. }
            | Self::Busy { .. } => false,
        }
    }

    /// Whether it was found by trying, so that it may be for packets which were lost on the way.
    pub(crate) fn is_by_trying(&self) -> bool {
        match self {
            Self::NotDirect { reason, .. } | Self::NotRelayed { reason, .. } => match reason {
                IceFailure::NoPath(FailureReason::NoPairWorks | FailureReason::Deadline)
                | IceFailure::PeerGone
                | IceFailure::Broke => true,
                IceFailure::NoPath(_) | IceFailure::Peer(_) => false,
            },
            Self::OffTime { why, .. } => why.is_by_trying(),
            _ => false,
        }
    }

    /// Whether somebody answers at the address who does not answer as the node.
    pub(crate) fn is_of_another_node(&self) -> bool {
        match self {
            Self::OffTime { why, .. } => why.is_of_another_node(),
            Self::Unreachable { why, .. } => why.not_there().is_some(),
            _ => false,
        }
    }
}

/// What was tried to reach a node, and what went wrong. The user hears the most telling of it.
#[derive(Debug, Default)]
pub(crate) struct Tried {
    /// Whether there was an offer.
    pub(crate) had_offer: bool,
    /// What the newest offer says about the node's clock.
    pub(crate) off_time: Option<OfferTime>,
    /// The version of an offer that this program does not read.
    pub(crate) other_version: Option<u8>,
    /// What went wrong with dialling.
    pub(crate) dial: Option<SessionError>,
    /// What went wrong with calling.
    pub(crate) call: Option<CallError>,
}

impl Tried {
    /// Whether a newer offer of the node might lead to it: nobody answers where this one says, or nobody there knows the node.
    pub(crate) fn may_be_outdated(&self) -> bool {
        let is_final = self.call.as_ref().is_some_and(CallError::is_final);
        let nobody_there =
            matches!(&self.dial, Some(why @ SessionError::AllFailed { .. }) if why.not_there().is_none());
        self.had_offer && !is_final && (nobody_there || self.call.is_some())
    }

    /// The error that tells most; none if nothing was tried.
    pub(crate) fn into_error(self, node: NodeKey) -> Option<FindError> {
        let said = self.off_time;
        self.without_time(node).map(|error| error.beside(said))
    }

    fn without_time(self, node: NodeKey) -> Option<FindError> {
        let Self { had_offer, off_time: _, other_version, dial, call } = self;
        if let Some(why) = &dial
            && why.not_there().is_some()
        {
            return dial.map(|why| FindError::Unreachable { node, why });
        }
        if let Some(got) = other_version.filter(|_| !had_offer) {
            return Some(FindError::OtherVersion { node, got });
        }
        match call {
            Some(CallError::NoPath { direct: Some(IceError { reason, pairs }), relayed }) => {
                Some(FindError::NotDirect { node, reason, relayed: relayed.map(|error| error.reason), pairs })
            }
            Some(CallError::NoPath { direct: None, relayed: Some(IceError { reason, pairs }) }) => {
                Some(FindError::NotRelayed { node, reason, pairs })
            }
            Some(CallError::NoPath { direct: None, relayed: None }) => {
                Some(FindError::NotCalled { node, why: CallError::Ended })
            }
            Some(why @ CallError::Refused(_)) => Some(FindError::NotCalled { node, why }),
            Some(CallError::NoSession { remote, why, .. }) => {
                let why = SessionError::AllFailed { failed: vec![(remote, why)], refused: Vec::new() };
                Some(FindError::Unreachable { node, why })
            }
            Some(CallError::TooMany(why)) => Some(FindError::Busy { node, why }),
            Some(why) if why.is_unanswered() && !matches!(dial, Some(SessionError::AllFailed { .. })) => {
                Some(FindError::NotCalled { node, why })
            }
            Some(_) | None => dial.map(|why| FindError::Unreachable { node, why }),
        }
    }
}

/// What a wrong clock has to do with it.
fn by_clock(clock: Option<&ClockSkew>) -> String {
    clock.map_or_else(String::new, |skew| format!("; this machine's clock is {skew}"))
}

fn met_others(versions: &[u32]) -> String {
    let list: Vec<_> = versions.iter().map(ToString::to_string).collect();
    match list.is_empty() {
        true => String::new(),
        false => format!(
            "; a peer speaks version {} of the rendezvous, this program speaks version {}",
            list.join(" or "),
            rendezvous::VERSION
        ),
    }
}

fn nor_by_relay(relayed: Option<&IceFailure>) -> String {
    match relayed {
        None | Some(IceFailure::NoPath(FailureReason::NoRelay)) => ", a relay would be needed".to_owned(),
        Some(reason) => format!("; nor through a relay: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::Stream;
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    fn told(dial: Option<SessionError>, call: Option<CallError>) -> String {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        Tried { had_offer: true, dial, call, ..Tried::default() }
            .into_error(node)
            .map_or_else(String::new, |error| error.to_string())
    }

    fn not_direct(error: IceError) -> CallError {
        CallError::no_path(Stream::Direct, error)
    }

    #[test]
    fn a_relay_that_led_nowhere_is_told_of_beside_the_direct_path() {
        let error = |reason: FailureReason| IceError { reason: reason.into(), pairs: Vec::new() };
        let of_both = |relayed| {
            let relayed = CallError::no_path(Stream::Relayed, error(relayed));
            told(None, Some(relayed.and(CallError::no_path(Stream::Direct, error(FailureReason::NoPairWorks)))))
        };
        assert!(of_both(FailureReason::NoRelay).ends_with("no pair of addresses works, a relay would be needed"));
        assert!(
            of_both(FailureReason::NoPairs).ends_with("; nor through a relay: there is no pair of addresses to try")
        );
        let hidden = CallError::no_path(Stream::Relayed, error(FailureReason::NoRelay));
        assert!(told(None, Some(hidden)).ends_with("was not reached through a relay: neither side has a relay"));
    }

    #[test]
    fn what_the_node_itself_has_shown_is_told_before_what_was_merely_tried() {
        let nothing = || Some(SessionError::NothingToDial { refused: Vec::new() });
        let failed = || Some(SessionError::AllFailed { failed: Vec::new(), refused: Vec::new() });
        let no_path = IceError { reason: FailureReason::BothMapByDestination.into(), pairs: Vec::new() };
        let told_no_path = told(failed(), Some(not_direct(no_path)));
        assert!(
            told_no_path.ends_with("was not reached directly: both NATs map by destination, a relay would be needed"),
            "{told_no_path}"
        );
        assert!(told(failed(), Some(CallError::Refused(CallRefusal::Policy))).contains("refused"));
        assert!(told(failed(), Some(CallError::TimedOut)).contains("no address answered"));
        assert!(told(nothing(), Some(CallError::TimedOut)).contains("no answer within"));
        assert!(told(nothing(), None).contains("no address to dial"));
        assert_eq!(told(None, None), "");
    }

    #[test]
    fn other_versions_are_named() {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        let failed = || Some(SessionError::AllFailed { failed: Vec::new(), refused: Vec::new() });
        let told = |had_offer, dial| {
            let tried = Tried { had_offer, dial, other_version: Some(3), ..Tried::default() };
            tried.into_error(node).unwrap().to_string()
        };
        for dial in [None, failed()] {
            assert!(told(false, dial).ends_with("is of version 3, this program reads version 2"));
        }
        assert!(told(true, failed()).contains("no address answered"));

        let no_offer =
            |other_versions| FindError::NoOffer { node, known_peers: 0, other_versions, clock: None }.to_string();
        assert!(no_offer(vec![]).ends_with("was found"));
        assert!(
            no_offer(vec![1, 3])
                .ends_with("was found; a peer speaks version 1 or 3 of the rendezvous, this program speaks version 2")
        );
    }

    #[test]
    fn a_newer_offer_is_looked_for_only_where_the_node_itself_has_not_answered() {
        let outdated = |had_offer, dial, call| Tried { had_offer, dial, call, ..Tried::default() }.may_be_outdated();
        let failed = || Some(SessionError::AllFailed { failed: Vec::new(), refused: Vec::new() });
        let no_path = || IceError { reason: FailureReason::NoPairWorks.into(), pairs: Vec::new() };
        assert!(outdated(true, failed(), None));
        assert!(outdated(true, None, Some(CallError::TimedOut)));
        assert!(!outdated(false, failed(), None));
        assert!(!outdated(true, failed(), Some(not_direct(no_path()))));
        assert!(!outdated(true, failed(), Some(CallError::Refused(CallRefusal::Busy))));
    }
}
