//! What every part of an agent uses while it deals with an event: timers, random numbers and the outbox.
//!
//! What it is not: time, which is an argument.

use std::{collections::VecDeque, time::Duration};

use keyferry_net::random::Random;

use super::{AgentCounters, Config, Output, Source, opening::Timing};

/// The longest round trip to believe. A peer that delays its answers must not stretch the timers without end.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(2);

/// The timers, random numbers and outbox of one agent.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) config: Config,
    /// How long a signal takes to the peer and back, once that was measured.
    round_trip: Option<Duration>,
    /// The one source of chance, so that a seed and the events after it determine all that the agent does.
    pub(super) random: Random,
    pub(super) out: Outbox,
}

impl Means {
    pub(super) fn new(config: Config, random: Random) -> Self {
        Self { round_trip: None, config, random, out: Outbox::default() }
    }

    /// Returns whether it is the first that was measured.
    pub(super) fn set_round_trip(&mut self, round_trip: Duration) -> bool {
        self.round_trip.replace(round_trip.min(MAX_ROUND_TRIP)).is_none()
    }

    fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(self.config.initial_round_trip)
    }

    /// How long a turn of opening takes.
    pub(super) fn timing(&self) -> Timing {
        let unheard = if self.round_trip.is_none() { self.config.unheard_patience } else { Duration::ZERO };
        Timing { round_trip: self.round_trip(), patience: self.config.round_patience, unheard }
    }

    /// How long the whole negotiation may take, from the peer's description on.
    pub(super) fn deadline(&self) -> Duration {
        self.config.deadline + self.config.deadline_round_trips * self.round_trip()
    }

    /// How long an attempt at a candidate that accepts may take.
    pub(super) fn connect_timeout(&self, source: Source) -> Duration {
        let timeout = match source {
            Source::Relayed(_) => self.config.relayed_connect_timeout,
            Source::Port(_) | Source::AnyPort(_) => self.config.connect_timeout,
        };
        timeout + 2 * self.round_trip()
    }
}

/// Outputs that wait for the caller, in order, and the counters.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    outputs: VecDeque<Output>,
    pub(super) counters: AgentCounters,
}

impl Outbox {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
