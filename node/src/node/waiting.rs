//! How long a fetch waits for those who have the content and are away, and what it tells meanwhile.
//!
//! What it is not: the search for them (`connect::connector`), or a clock; the time is an argument of the decision.

use std::time::{Duration, Instant};

use tokio::{sync::watch, time};

use super::{
    api::{DEFAULT_WAIT, Event, LOOK_FOR, Wait, WaitOver, Waiting},
    events::Events,
};
use crate::{
    base::clock,
    connect::connector::{MissedTry, SearchBoard, SearchState},
    content::transfer::fetch::FetchProgress,
};

/// Who is waited for.
#[derive(Debug, Clone)]
pub(super) struct WaitedFor {
    /// The key of the node, or the hash of the content whose providers are sought.
    pub(super) whom: String,
    /// Its name, if it is a contact.
    pub(super) contact: Option<String>,
}

/// Whether nobody is there, since when, and how long that may be.
#[derive(Debug)]
struct Absence {
    wait: Wait,
    is_contact: bool,
    search: SearchState,
    is_absent: bool,
    /// Whether somebody was there at some time, with whom a connection can have been lost.
    was_present: bool,
    /// When the wait began; none before it first did.
    since: Option<Instant>,
    /// How far the fetch was then.
    done_bytes: u64,
}

impl Absence {
    fn new(wait: Wait, is_contact: bool) -> Self {
        Self {
            wait,
            is_contact,
            search: SearchState::default(),
            is_absent: false,
            was_present: false,
            since: None,
            done_bytes: 0,
        }
    }

    fn on_search(&mut self, state: SearchState) {
        self.search = state;
    }

    /// Notes whether somebody is there. Whoever comes and goes without giving anything does not make the wait begin anew.
    fn on_progress(&mut self, now: Instant, is_absent: bool, done_bytes: u64) {
        if is_absent && !self.is_absent && (self.since.is_none() || done_bytes > self.done_bytes) {
            self.since = Some(now);
            self.done_bytes = done_bytes;
        }
        self.is_absent = is_absent;
        self.was_present |= !is_absent;
    }

    /// Since when nobody is there.
    fn since(&self) -> Option<Instant> {
        self.since.filter(|_| self.is_absent)
    }

    fn is_known(&self) -> bool {
        self.is_contact || self.search.was_reached || self.search.offer.is_some()
    }

    fn missed(&self) -> Option<&MissedTry> {
        self.search.missed.as_ref().filter(|_| self.is_absent)
    }

    /// How long nobody may be there; none for ever.
    fn limit(&self) -> Option<Duration> {
        match self.wait {
            Wait::Known if self.is_known() => Some(DEFAULT_WAIT),
            Wait::Known | Wait::None => Some(LOOK_FOR),
            Wait::For(duration) => Some(duration),
            Wait::Forever => None,
        }
    }

    /// When the wait is over, whatever the tries bring.
    fn ends(&self) -> Option<Instant> {
        // Beyond what can be reckoned is for ever.
        self.since()?.checked_add(self.limit()?)
    }

    fn is_over(&self, now: Instant) -> bool {
        let is_in_vain = |missed: &MissedTry| {
            self.wait == Wait::None
                || (missed.is_final && !self.search.was_reached)
                || (missed.is_of_another && self.wait == Wait::Known && !self.is_known())
        };
        self.missed().is_some_and(is_in_vain) || self.ends().is_some_and(|ends| ends <= now)
    }

    /// What is told of the wait; nothing before there is a reason for it.
    fn in_words(&self, now: Instant, awaited: &WaitedFor) -> Option<Waiting> {
        let waited = now.saturating_duration_since(self.since()?);
        let (reason, next) = match self.missed() {
            Some(missed) => (missed.why.clone(), missed.next),
            None if self.search.was_reached && self.was_present => ("the connection was lost".to_owned(), now),
            None => return None,
        };
        let left = self.ends().map(|ends| ends.saturating_duration_since(now));
        let clock = clock::now();
        Some(Waiting {
            whom: awaited.whom.clone(),
            contact: awaited.contact.clone(),
            reason,
            since: clock.0.saturating_sub(waited.as_secs()),
            until: left.map(|left| clock.plus(left).0),
            waited,
            left,
            next_try: next.saturating_duration_since(now),
        })
    }
}

/// Follows a search and a fetch, and tells how they stand, until nobody is waited for any more.
#[derive(Debug)]
pub(super) struct FetchWait {
    absence: Absence,
    awaited: WaitedFor,
    search: watch::Receiver<SearchState>,
    progress: watch::Receiver<FetchProgress>,
    told: FetchProgress,
    events: Events,
}

impl FetchWait {
    /// The wait of a fetch, whose `progress` says when somebody is there.
    pub(super) fn of_fetch(
        wait: Wait,
        awaited: WaitedFor,
        board: &SearchBoard,
        progress: watch::Receiver<FetchProgress>,
        events: &Events,
    ) -> Self {
        let absence = Absence::new(wait, awaited.contact.is_some());
        let (search, told, events) = (board.subscribe(), FetchProgress::default(), events.clone());
        let mut this = Self { absence, awaited, search, progress, told, events };
        this.take_search();
        this
    }

    /// The wait until somebody is first reached: nobody is there from now on.
    pub(super) fn of_search(wait: Wait, awaited: WaitedFor, board: &SearchBoard, events: &Events) -> Self {
        let mut this = Self::of_fetch(wait, awaited, board, watch::channel(FetchProgress::default()).1, events);
        this.absence.on_progress(now(), true, 0);
        // Who was reached before was there then.
        this.absence.was_present = true;
        this
    }

    /// Returns when the wait is over.
    pub(super) async fn until_over(&mut self) {
        while !self.absence.is_over(now()) {
            let ends = self.absence.ends();
            tokio::select! {
                Ok(()) = self.search.changed() => {
                    self.take_search();
                    self.tell_waiting();
                }
                Ok(()) = self.progress.changed() => self.take_progress(),
                () = at(ends) => {}
            }
        }
    }

    /// What the wait was for, if it is over.
    pub(super) fn over(&self) -> Option<WaitOver> {
        let now = now();
        let waited = now.saturating_duration_since(self.absence.since()?);
        let is_final = self.absence.missed().is_some_and(|missed| missed.is_final);
        let (wait, is_known) = (self.absence.wait, self.absence.is_known());
        self.absence.is_over(now).then_some(WaitOver { wait, waited, is_known, is_final })
    }

    fn take_search(&mut self) {
        let state = self.search.borrow_and_update().clone();
        self.absence.on_search(state);
    }

    fn take_progress(&mut self) {
        let progress = *self.progress.borrow_and_update();
        let FetchProgress { done_bytes, total_bytes, done_files, total_files, is_stuck } = progress;
        // Who has all waits for nobody.
        let is_stuck = is_stuck && (total_bytes == 0 || done_bytes < total_bytes);
        let was_absent = self.absence.is_absent;
        self.absence.on_progress(now(), is_stuck, done_bytes);
        if !is_stuck || self.told != progress {
            self.told = progress;
            // A front end that is behind misses some progress, no more.
            let _ = self.events.try_send(Event::Fetching { done_bytes, total_bytes, done_files, total_files });
        }
        if is_stuck && !was_absent {
            self.tell_waiting();
        }
    }

    fn tell_waiting(&self) {
        if let Some(waiting) = self.absence.in_words(now(), &self.awaited) {
            // A front end that is behind hears of the next try.
            let _ = self.events.try_send(Event::Waiting(waiting));
        }
    }
}

/// The time of the runtime, which stands still where a test has it so.
fn now() -> Instant {
    time::Instant::now().into_std()
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
