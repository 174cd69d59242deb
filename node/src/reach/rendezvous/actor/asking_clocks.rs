//! What the task does about the clocks of peers.
//!
//! What it is not: what follows from their answers ([`crate::reach::rendezvous::clocks`]).

use std::time::Instant;

use libp2p::{PeerId, request_response};

use super::Actor;
use crate::{
    base::clock,
    reach::rendezvous::{
        clocks::{self, ClockEvent},
        scope::socket_addr_of,
    },
};

impl Actor {
    /// Asks a connected peer what time it is, if nobody at its host has said so lately.
    pub(super) fn ask_clock(&mut self, peer: &PeerId) {
        let remote = self.connections.of(peer).first().and_then(|connection| socket_addr_of(&connection.remote));
        let Some(host) = remote.map(|remote| remote.ip().to_canonical()) else { return };
        if self.clocks.wants(host, Instant::now()) {
            let question = self.swarm.behaviour_mut().clock.inner.send_request(peer, ());
            self.clocks.asked(question, host);
        }
    }

    /// Asks all anew, since this machine's clock has been set.
    pub(super) fn on_clock_set(&mut self) {
        self.clocks.on_clock_set();
        self.announcer.set_skew(None);
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        connected.iter().for_each(|peer| self.ask_clock(peer));
        self.status.changed();
    }

    pub(super) fn on_clock(&mut self, event: ClockEvent) {
        use request_response::{Event, Message};
        match event {
            Event::Message { message: Message::Request { channel, .. }, .. } => {
                // Whoever has gone hears nothing.
                let _ = self.swarm.behaviour_mut().clock.inner.send_response(channel, clocks::answer(clock::now()));
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                let was_wrong = self.clocks.skew(Instant::now()).is_some_and(|skew| skew.is_too_much());
                self.clocks.answered(request_id, response, clock::now(), Instant::now());
                if let Some(skew) = self.clocks.skew(Instant::now())
                    && skew.is_too_much()
                    && !was_wrong
                {
                    tracing::warn!("this machine's clock is {skew}");
                }
                self.announcer.set_skew(self.clocks.skew(Instant::now()));
                self.status.changed();
            }
            Event::OutboundFailure { request_id, .. } => self.clocks.failed(request_id),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }
}
