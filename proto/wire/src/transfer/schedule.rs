//! Decides which units to ask of whom, with any number of providers that come, go, stall, refuse and lie.
//!
//! - It asks the first provider for everything at once, before anything is known. When the layout is known, it asks an idle
//!   provider for what it has asked nobody for; if there is nothing, that provider takes over the tail of the request that
//!   would take longest: half of it, or by the measured rates. It never asks two for the same unit.
//! - When there is a better path to a provider, its request ends where it is, and the schedule asks for the rest over that path.
//! - It drops a provider that brings nothing for a while. One that lies is dropped by the driver, which notices, and does not
//!   add it again.
//! - A provider may refuse items: then it asks others for them. When nobody is left to ask, the schedule is stuck, and goes
//!   on when another provider comes.
//!
//! What it is not: it opens no stream, reads no data and proves nothing; the driver does, and says what came of it.

mod api;
mod split;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    time::{Duration, Instant},
};

pub use self::api::{DropReason, ProviderId, RequestId, ScheduleConfig, ScheduleError, ScheduleInput, ScheduleOutput};
use crate::transfer::units::{MAX_WIRE_RANGES, OPEN_END, UnitRanges};

/// How many requests in a row a provider may end early without bringing anything.
pub const MAX_EMPTY_REQUESTS: u32 = 3;

/// How often to think the split over while a provider is idle.
pub const RECHECK: Duration = Duration::from_secs(1);

/// The state machine: see the module.
#[derive(Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    providers: BTreeMap<ProviderId, ProviderState>,
    /// None until the layout is known.
    total_units: Option<u64>,
    missing: UnitRanges,
    outputs: VecDeque<ScheduleOutput>,
    next_request: u64,
    /// When the split is thought over next, while there is somebody idle.
    recheck: Option<Instant>,
    /// Requests taken over whole since anything was verified: the patience doubles with each.
    takeovers: u32,
    had_provider: bool,
    stuck: bool,
    complete: bool,
}

/// What is known of a provider.
#[derive(Debug, Default)]
struct ProviderState {
    active: Option<Active>,
    refused: UnitRanges,
    empty_requests: u32,
    /// Units that it brought, and the time that it took over them, up to the start of the present request.
    verified: u64,
    busy: Duration,
}

/// A request that has not ended.
#[derive(Debug)]
struct Active {
    request: RequestId,
    /// The units that are still to come, and wanted.
    rest: UnitRanges,
    started: Instant,
    last_progress: Instant,
    verified: u64,
    /// Whether another took it over whole, because nothing came.
    taken_over: bool,
    /// Whether it ends because the provider is asked over another session.
    moved: bool,
}

impl Schedule {
    /// A schedule without providers for a layout that is not known.
    pub fn new(config: ScheduleConfig) -> Self {
        Self {
            config,
            providers: BTreeMap::new(),
            total_units: None,
            missing: UnitRanges::all(),
            outputs: VecDeque::new(),
            next_request: 0,
            recheck: None,
            takeovers: 0,
            had_provider: false,
            stuck: false,
            complete: false,
        }
    }

    /// Takes in what happened. Reports about providers that are gone already are not errors: they cross on the way.
    pub fn handle_input(&mut self, now: Instant, input: ScheduleInput) -> Result<(), ScheduleError> {
        match input {
            ScheduleInput::ProviderAdded(provider) => self.add_provider(provider)?,
            ScheduleInput::ProviderLost(provider) => drop(self.providers.remove(&provider)),
            ScheduleInput::ProviderMoved(provider) => self.move_provider(provider),
            ScheduleInput::Planned { total_units, have } => self.plan(total_units, &have)?,
            ScheduleInput::Verified { provider, units } => {
                // The busiest input: while it goes as planned, nothing needs to be thought over.
                if self.verify(now, provider, units)? {
                    return Ok(());
                }
            }
            ScheduleInput::Alive(provider) => {
                if let Some(active) = self.providers.get_mut(&provider).and_then(|provider| provider.active.as_mut()) {
                    active.last_progress = now;
                }
                return Ok(());
            }
            ScheduleInput::RequestEnded { provider, request } => self.end_request(now, provider, request),
            ScheduleInput::ItemRefused { provider, units } => self.refuse(now, provider, units),
            ScheduleInput::Timeout => {}
        }
        self.settle(now);
        Ok(())
    }

    /// What to do next. Call until it returns [`ScheduleOutput::Timeout`].
    pub fn poll_output(&mut self) -> ScheduleOutput {
        self.outputs.pop_front().unwrap_or_else(|| ScheduleOutput::Timeout(self.deadline()))
    }

    /// The units that are not there; before the layout is known, up to [`OPEN_END`].
    pub fn missing(&self) -> &UnitRanges {
        &self.missing
    }

    /// The providers that may be asked.
    pub fn providers(&self) -> impl Iterator<Item = ProviderId> + '_ {
        self.providers.keys().copied()
    }

    fn deadline(&self) -> Option<Instant> {
        let stalls = self.active().map(|(_, active)| active.last_progress + self.config.stall);
        stalls.chain(self.recheck).min()
    }

    fn active(&self) -> impl Iterator<Item = (ProviderId, &Active)> {
        self.providers.iter().filter_map(|(&id, provider)| Some((id, provider.active.as_ref()?)))
    }

    fn add_provider(&mut self, id: ProviderId) -> Result<(), ScheduleError> {
        if self.providers.len() >= self.config.max_providers {
            return Err(ScheduleError::TooManyProviders { limit: self.config.max_providers });
        }
        self.providers.insert(id, ProviderState::default());
        self.had_provider = true;
        self.stuck = false;
        Ok(())
    }

    /// What the running request has not brought stays its own until it ends: it may still bring the unit that it is at.
    fn move_provider(&mut self, id: ProviderId) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        (provider.verified, provider.busy, provider.empty_requests) = (0, Duration::ZERO, 0);
        if let Some(active) = provider.active.as_mut().filter(|active| !active.moved) {
            active.moved = true;
            self.outputs.push_back(ScheduleOutput::Shorten { provider: id, request: active.request, end_unit: 0 });
        }
    }

    fn plan(&mut self, total_units: u64, have: &UnitRanges) -> Result<(), ScheduleError> {
        if self.total_units.is_some() {
            return Err(ScheduleError::AlreadyPlanned);
        }
        self.total_units = Some(total_units);
        self.missing.remove(total_units..OPEN_END);
        self.missing = self.missing.difference(have);
        for active in self.providers.values_mut().filter_map(|provider| provider.active.as_mut()) {
            active.rest.remove(total_units..OPEN_END);
        }
        Ok(())
    }

    /// Whether all went as planned, so that nothing needs to be thought over.
    fn verify(&mut self, now: Instant, id: ProviderId, units: Range<u64>) -> Result<bool, ScheduleError> {
        if let Some(total_units) = self.total_units.filter(|&total| units.end > total) {
            return Err(ScheduleError::OutOfRange { end: units.end, total_units });
        }
        let was_missing = self.missing.covers(units.clone());
        self.missing.remove(units.clone());
        self.takeovers = 0;
        let Some(active) = self.providers.get_mut(&id).and_then(|provider| provider.active.as_mut()) else {
            return Ok(false);
        };
        let was_wanted =
            active.rest.first().is_some_and(|first| first == units.start) && active.rest.covers(units.clone());
        active.rest.remove(0..units.end);
        active.verified += units.end - units.start;
        active.last_progress = now;
        Ok(was_missing && was_wanted && !self.missing.is_empty())
    }

    fn end_request(&mut self, now: Instant, id: ProviderId, request: RequestId) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let Some(active) = provider.active.take_if(|active| active.request == request) else { return };
        if active.moved {
            return;
        }
        provider.verified += active.verified;
        provider.busy += now.saturating_duration_since(active.started);
        if active.verified > 0 {
            provider.empty_requests = 0;
        } else if active.taken_over || !active.rest.is_empty() {
            provider.empty_requests += 1;
        }
        if provider.empty_requests >= MAX_EMPTY_REQUESTS {
            self.drop_provider(id, DropReason::Empty);
        }
    }

    fn refuse(&mut self, now: Instant, id: ProviderId, units: Range<u64>) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        provider.refused.insert(units.clone());
        provider.empty_requests = 0;
        if let Some(active) = &mut provider.active {
            active.rest.remove(units);
            active.last_progress = now;
        }
    }

    fn drop_provider(&mut self, id: ProviderId, why: DropReason) {
        self.providers.remove(&id);
        self.outputs.push_back(ScheduleOutput::Drop { provider: id, why });
    }

    /// Brings the requests in line with what is known now.
    fn settle(&mut self, now: Instant) {
        self.recheck = None;
        if self.total_units.is_some() && self.missing.is_empty() {
            self.finish();
            return;
        }
        self.drop_stalled(now);
        self.trim();
        self.assign(now);
        let idle = self.providers.values().any(|provider| provider.active.is_none());
        let busy = self.active().next().is_some();
        if idle && busy {
            self.recheck = Some(now + RECHECK);
        }
        if !busy && self.had_provider && !self.stuck {
            self.stuck = true;
            self.outputs.push_back(ScheduleOutput::Stuck { missing: self.missing.clone() });
        }
    }

    fn finish(&mut self) {
        for (&id, provider) in &mut self.providers {
            let Some(active) = &mut provider.active else { continue };
            if let Some(end_unit) = active.rest.first() {
                self.outputs.push_back(ScheduleOutput::Shorten { provider: id, request: active.request, end_unit });
                active.rest = UnitRanges::empty();
            }
        }
        if !self.complete {
            self.complete = true;
            self.outputs.push_back(ScheduleOutput::Complete);
        }
    }

    fn drop_stalled(&mut self, now: Instant) {
        let is_stalled = |active: &Active| now >= active.last_progress + self.config.stall;
        let stalled: Vec<_> = self.active().filter(|(_, active)| is_stalled(active)).map(|(id, _)| id).collect();
        stalled.into_iter().for_each(|id| self.drop_provider(id, DropReason::Stalled));
    }

    /// Cuts requests short in front of long stretches that are there already.
    fn trim(&mut self) {
        for (&id, provider) in &mut self.providers {
            let Some(active) = &mut provider.active else { continue };
            let there = active.rest.difference(&self.missing);
            let wasted = there.total() == active.rest.total();
            let cut = there.iter().find(|range| wasted || range.end - range.start >= self.config.min_split);
            if let Some(end_unit) = cut.map(|range| range.start) {
                active.rest.remove(end_unit..OPEN_END);
                self.outputs.push_back(ScheduleOutput::Shorten { provider: id, request: active.request, end_unit });
            }
        }
    }

    /// Gives every idle provider something to do, if there is anything.
    fn assign(&mut self, now: Instant) {
        let mut idle: Vec<ProviderId> =
            self.providers.iter().filter(|(_, provider)| provider.active.is_none()).map(|(&id, _)| id).collect();
        if idle.is_empty() {
            return;
        }
        let mut free = self.missing.clone();
        for (_, active) in self.active() {
            free = free.difference(&active.rest);
        }
        let mut waiting = Vec::new();
        while let Some(id) = (!idle.is_empty()).then(|| idle.remove(0)) {
            let open = self.providers.get(&id).map(|provider| free.difference(&provider.refused)).unwrap_or_default();
            if open.is_empty() {
                waiting.push(id);
                continue;
            }
            let share = match self.total_units {
                Some(_) => open.total().div_ceil(idle.len() as u64 + 1).max(self.config.min_split),
                None => OPEN_END,
            };
            let ranges = open.first_units(share).first_ranges(MAX_WIRE_RANGES);
            free = free.difference(&ranges);
            self.request(now, id, ranges);
        }
        waiting.into_iter().for_each(|id| self.take_over(now, id));
    }

    fn request(&mut self, now: Instant, id: ProviderId, ranges: UnitRanges) {
        let Some(provider) = self.providers.get_mut(&id) else { return };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.stuck = false;
        provider.active = Some(Active {
            request,
            rest: ranges.clone(),
            started: now,
            last_progress: now,
            verified: 0,
            taken_over: false,
            moved: false,
        });
        self.outputs.push_back(ScheduleOutput::Request { provider: id, request, ranges });
    }
}

#[cfg(test)]
mod tests;
