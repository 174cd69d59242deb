//! How an idle provider takes over the tail of another's request.
//!
//! What it is not: bookkeeping of what is missing; see the parent module.

use std::time::{Duration, Instant};

use super::{Active, ProviderId, ProviderState, Schedule, ScheduleOutput};
use crate::transfer::units::{MAX_WIRE_RANGES, OPEN_END, UnitRanges};

/// Patience before a request is taken over whole doubles with each time, up to 2^this.
const MAX_PATIENCE_DOUBLINGS: u32 = 6;

/// What an idle provider may take.
struct Split {
    victim: ProviderId,
    /// How many units at the end of its rest.
    share: u64,
    /// Whether that is all of the rest.
    whole: bool,
    /// How long the victim would take over its rest, in seconds.
    left: f64,
}

impl Schedule {
    /// Lets an idle provider take over the tail of the request that would take longest, if that is worth it.
    pub(super) fn take_over(&mut self, now: Instant, thief: ProviderId) {
        let Some(own) = self.providers.get(&thief) else { return };
        let own_rate = own.rate(now);
        let splits = self.providers.iter().filter_map(|(&id, provider)| self.split(now, own_rate, id, provider));
        let free_of_refusals = splits.filter(|split| {
            let rest = self
                .providers
                .get(&split.victim)
                .and_then(|provider| provider.active.as_ref())
                .map(|active| &active.rest);
            rest.is_some_and(|rest| own.refused.intersection(&last_units(rest, split.share)).is_empty())
        });
        let Some(split) = free_of_refusals.max_by(|a, b| a.left.total_cmp(&b.left)) else { return };
        let Some(active) = self.providers.get_mut(&split.victim).and_then(|provider| provider.active.as_mut()) else {
            return;
        };
        let tail = last_units(&active.rest, split.share);
        let Some(end_unit) = tail.first() else { return };
        active.rest.remove(end_unit..OPEN_END);
        active.taken_over = split.whole;
        self.outputs.push_back(ScheduleOutput::Shorten { provider: split.victim, request: active.request, end_unit });
        self.takeovers += u32::from(split.whole);
        // What does not fit into one request is free again, and found when this one has ended.
        let wanted = tail.intersection(&self.missing).first_ranges(MAX_WIRE_RANGES);
        self.request(now, thief, wanted);
    }

    fn split(
        &self,
        now: Instant,
        own_rate: Option<f64>,
        victim: ProviderId,
        provider: &ProviderState,
    ) -> Option<Split> {
        let active = provider.active.as_ref()?;
        let units = active.rest.intersection(&self.missing).total();
        if units == 0 {
            return None;
        }
        let slow = self.config.slow;
        let rate = provider.rate(now);
        let silent = now.saturating_duration_since(active.last_progress);
        // A provider that has brought nothing yet is at best about to bring its first unit.
        let left = units as f64 / rate.unwrap_or_else(|| 1.0 / silent.as_secs_f64().max(1e-3));
        let patience = slow * (1 << self.takeovers.min(MAX_PATIENCE_DOUBLINGS));
        let is_quick = own_rate.is_none_or(|own| own * slow.as_secs_f64() > 1.0);
        if silent >= patience && is_quick {
            return Some(Split { victim, share: active.rest.total(), whole: true, left });
        }
        // Before the layout is known there is no tail to give away.
        self.total_units?;
        let part = match (own_rate, rate) {
            (Some(own), Some(rate)) => own / (own + rate),
            _ => 0.5,
        };
        let share = ((units as f64 * part) as u64).clamp(1, units.max(2) - 1);
        let is_worth_it = share >= self.config.min_split || left > slow.as_secs_f64();
        (units >= 2 && is_worth_it).then_some(Split { victim, share, whole: false, left })
    }
}

impl ProviderState {
    /// Units a second over its whole life; none before its first unit.
    fn rate(&self, now: Instant) -> Option<f64> {
        let (verified, busy) = match &self.active {
            Some(Active { verified, started, .. }) => (*verified, now.saturating_duration_since(*started)),
            None => (0, Duration::ZERO),
        };
        let verified = self.verified + verified;
        (verified > 0).then(|| verified as f64 / (self.busy + busy).as_secs_f64().max(1e-6))
    }
}

/// The last `count` units of a set.
fn last_units(set: &UnitRanges, count: u64) -> UnitRanges {
    let first = set.first_units(set.total().saturating_sub(count));
    set.difference(&first)
}
