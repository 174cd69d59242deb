//! Connections that may be dead: each is probed and, where it is one that this node needs, dialled again at the same time. A new
//! connection takes more round trips than a probe, so an old one that has not answered by then is closed. One that has stays beside
//! the new one, which shows where connections leave now.
//!
//! What it is not: signs that something may be dead, which come from elsewhere ([`crate::net::trouble`]), or the probe
//! ([`super::probe`]).

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use libp2p::swarm::ConnectionId;

use crate::net::trouble;

/// Connections that are in doubt at once, at most.
pub(super) const MAX_DOUBTED: usize = 64;
/// Those of them that are dialled again.
pub(super) const MAX_REDIALLED: usize = 8;
/// How long a peer that has connected again has to answer on its earlier connection.
const REPLACED_PATIENCE: Duration = Duration::from_millis(500);
/// The same in round trips.
const REPLACED_ROUND_TRIPS: u32 = 4;

/// The connections that are in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Each with the connection that is being made in its stead.
    doubted: HashMap<ConnectionId, Option<ConnectionId>>,
    /// Connections that are being closed, because they have not.
    dead: HashSet<ConnectionId>,
}

/// How long a connection may take to answer a probe; its round trip, if it is known, counts.
pub(super) fn patience(round_trip: Option<Duration>) -> Duration {
    trouble::patience(round_trip.unwrap_or_default())
}

/// The same for one whose peer has connected again.
pub(super) fn patience_with_replaced(round_trip: Option<Duration>) -> Duration {
    REPLACED_PATIENCE.max(round_trip.unwrap_or_default() * REPLACED_ROUND_TRIPS)
}

impl Doubts {
    /// Begins to doubt a connection; false if that is so already, or too many are doubted.
    pub(super) fn begin(&mut self, id: ConnectionId) -> bool {
        if self.doubted.len() >= MAX_DOUBTED || self.doubted.contains_key(&id) {
            return false;
        }
        self.doubted.insert(id, None);
        true
    }

    /// Notes that another connection is being made in the stead of one that is doubted.
    pub(super) fn made_in_stead(&mut self, id: ConnectionId, by: ConnectionId) {
        if let Some(in_stead) = self.doubted.get_mut(&id) {
            *in_stead = Some(by);
        }
    }

    /// The connection that was doubted, and has not answered until this one was made in its stead.
    pub(super) fn replaced_by(&self, id: ConnectionId) -> Option<ConnectionId> {
        self.doubted.iter().find(|(_, in_stead)| **in_stead == Some(id)).map(|(earlier, _)| *earlier)
    }

    /// Notes what came of the probe of a connection; true if it is to be closed.
    pub(super) fn on_probed(&mut self, id: ConnectionId, is_alive: bool) -> bool {
        self.doubted.remove(&id).is_some() && !is_alive
    }

    /// Notes that a connection is being closed because it has not answered.
    pub(super) fn on_dead(&mut self, id: ConnectionId) {
        self.dead.insert(id);
    }

    /// Notes that a connection has closed, or could not be made; true if it was closed because it had not answered.
    pub(super) fn on_gone(&mut self, id: ConnectionId) -> bool {
        self.doubted.remove(&id);
        self.dead.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    #[test]
    fn an_old_connection_is_closed_if_the_one_in_its_stead_is_there_before_its_answer() {
        let mut doubts = Doubts::default();
        for number in [1, 2] {
            assert!(doubts.begin(id(number)) && !doubts.begin(id(number)));
            doubts.made_in_stead(id(number), id(10 + number));
        }

        assert_eq!(doubts.replaced_by(id(11)), Some(id(1)));
        doubts.on_dead(id(1));
        assert!(doubts.on_gone(id(1)) && !doubts.on_gone(id(1)));
        assert!(!doubts.on_probed(id(2), true));
        assert_eq!(doubts.replaced_by(id(12)), None, "the old one has answered");
        assert!(doubts.doubted.is_empty() && doubts.dead.is_empty());
    }

    #[test]
    fn one_that_does_not_answer_is_closed_and_so_many_are_doubted_and_no_more() {
        let mut doubts = Doubts::default();
        assert_eq!((0..1000).filter(|number| doubts.begin(id(*number))).count(), MAX_DOUBTED);
        assert!(doubts.on_probed(id(0), false));
        assert!(!doubts.on_probed(id(0), false), "it is doubted no longer");
    }
}
