//! How the search for somebody stands: told to whoever decides how long it goes on.
//!
//! What it is not: that decision (`node::waiting`), or the search itself.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_proto::{hash::ContentHash, identity::NodeKey};
use libp2p::Multiaddr;
use tokio::sync::watch;

use super::error::{FindError, Tried};
use crate::net::session::Session;

/// The pause after the first try that leads to nobody; it doubles from try to try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long tries follow each other closely: as long as a fetch waits by itself, so that whoever is back is noticed soon.
const CLOSE_TRIES: Duration = Duration::from_secs(10 * 60);
/// The longest pause in that time.
const MAX_CLOSE_PAUSE: Duration = Duration::from_secs(3);
/// The longest pause later.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How many tries in a row are to find no path until that is believed: on a bad line, one of them may have lost too much.
const TRIES_IN_VAIN: usize = 3;

/// Whose sessions a fetch wants.
#[derive(Debug)]
pub(crate) struct SoughtProviders {
    /// The content.
    pub(crate) root: ContentHash,
    /// The node to be reached, if one is named; made again whenever its session is lost.
    pub(crate) node: Option<NodeKey>,
    /// They lead to the node, or, without one, each to a provider of its own.
    pub(crate) hints: Vec<Multiaddr>,
    /// The session with the node, if there is one already.
    pub(crate) first: Option<Session>,
    /// Where it is told how many providers are known and were not tried yet.
    pub(crate) untried: watch::Sender<usize>,
}

/// How the search for a node, or for providers of content, stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchState {
    /// The sequence number of the newest offer of the node that was opened: with one, the node was there some hours ago.
    pub(crate) offer: Option<u64>,
    /// Whether somebody was reached, if only once.
    pub(crate) was_reached: bool,
    /// The last try, if it led to nobody; none before the first has ended, and once somebody is found.
    pub(crate) missed: Option<MissedTry>,
}

/// A try that led to nobody.
#[derive(Debug, Clone)]
pub(crate) struct MissedTry {
    /// Why, in words.
    pub(crate) why: String,
    /// Whether waiting does not help: whoever is sought is there, and says no, or there is no path.
    pub(crate) is_final: bool,
    /// Whether another node answers at its address: waiting helps only if it is known otherwise.
    pub(crate) is_of_another: bool,
    /// When the next one begins.
    pub(crate) next: Instant,
}

impl MissedTry {
    /// No provider of the content was found.
    pub(super) fn of_providers(next: Instant) -> Self {
        Self { why: "no provider was reached".to_owned(), is_final: false, is_of_another: false, next }
    }
}

/// Where a search tells how it stands. Clones tell the same listeners.
#[derive(Debug, Clone, Default)]
pub(crate) struct SearchBoard(Arc<watch::Sender<SearchState>>);

impl SearchBoard {
    /// The state, as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<SearchState> {
        self.0.subscribe()
    }

    /// Tells that an offer of the node was opened.
    pub(crate) fn opened_offer(&self, sequence: u64) {
        self.0.send_if_modified(|state| {
            let is_newer = state.offer < Some(sequence);
            state.offer = state.offer.max(Some(sequence));
            is_newer
        });
    }

    pub(super) fn newest_offer(&self) -> Option<u64> {
        self.0.borrow().offer
    }

    /// Tells that a try has led to nobody.
    pub(crate) fn missed(&self, missed: MissedTry) {
        self.0.send_modify(|state| state.missed = Some(missed));
    }

    /// Tells that somebody is found.
    pub(crate) fn found(&self) {
        self.0.send_if_modified(|state| {
            let is_new = !state.was_reached || state.missed.is_some();
            (state.was_reached, state.missed) = (true, None);
            is_new
        });
    }
}

/// What a search has tried so far; kept by whoever may give it up, to know why it was in vain.
#[derive(Debug, Default)]
pub(crate) struct SearchTries {
    /// The try under way.
    pub(super) present: Tried,
    /// Why the one before was in vain.
    pub(super) last: Option<FindError>,
}

/// What the tries of one search say together.
#[derive(Debug, Default)]
pub(super) struct SearchVerdicts {
    /// How many in a row have led to nobody for good.
    in_vain: usize,
}

impl SearchVerdicts {
    /// Whether waiting does not help, now that a try has failed in this way.
    pub(super) fn is_final(&mut self, error: &FindError) -> bool {
        self.in_vain = if error.is_final() { self.in_vain + 1 } else { 0 };
        let needed = if error.is_by_trying() { TRIES_IN_VAIN } else { 1 };
        self.in_vain >= needed
    }
}

/// The pauses between the tries of one search.
#[derive(Debug)]
pub(super) struct SearchPauses {
    began: Instant,
    next: Duration,
}

impl SearchPauses {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, next: FIRST_PAUSE }
    }

    /// The pause after a try that ends now.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let is_close = now.saturating_duration_since(self.began) < CLOSE_TRIES;
        let pause = self.next.min(if is_close { MAX_CLOSE_PAUSE } else { MAX_PAUSE });
        self.next = (pause * 2).min(MAX_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use keyferry_ice::FailureReason;
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    /// The times at which tries begin that end at once, in the time given.
    fn tries(within: Duration) -> Vec<Duration> {
        let begin = Instant::now();
        let (mut pauses, mut at, mut tries) = (SearchPauses::new(begin), Duration::ZERO, Vec::new());
        while at < within {
            tries.push(at);
            at += pauses.next(begin + at);
        }
        tries
    }

    #[test]
    fn whoever_is_back_is_tried_within_seconds_for_as_long_as_a_fetch_waits_by_itself() {
        let tries = tries(Duration::from_secs(600));
        let gaps: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..4], [500, 1000, 2000, 3000].map(Duration::from_millis));
        assert!(gaps.iter().all(|gap| *gap <= Duration::from_secs(3)));
        assert!(tries.len() < 220, "{}", tries.len());
    }

    #[test]
    fn later_it_is_tried_seldom() {
        let day = tries(Duration::from_secs(24 * 3600));
        let gaps: Vec<_> = day.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps.last(), Some(&Duration::from_secs(30)));
        assert!(gaps.is_sorted());
        assert!(day.len() < 3200, "{}", day.len());
    }

    #[test]
    fn that_no_path_works_is_believed_when_it_was_tried_three_times_and_what_the_nats_do_at_once() {
        let node = NodeSecret::from_bytes(&[1; 32]).public();
        let no_path = |reason: FailureReason| FindError::NotDirect {
            node,
            reason: reason.into(),
            relayed: None,
            pairs: Vec::new(),
        };
        let (no_pair_works, unanswered) = (no_path(FailureReason::NoPairWorks), FindError::Unanswered { node });
        let mut verdicts = SearchVerdicts::default();
        let tried = [&no_pair_works, &no_pair_works, &unanswered, &no_pair_works, &no_pair_works, &no_pair_works];
        assert_eq!(tried.map(|error| verdicts.is_final(error)), [false, false, false, false, false, true]);
        assert!(SearchVerdicts::default().is_final(&no_path(FailureReason::BothMapByDestination)));
    }

    #[test]
    fn only_what_is_new_is_told() {
        let board = SearchBoard::default();
        let mut state = board.subscribe();
        board.opened_offer(5);
        assert!(state.has_changed().unwrap() && state.borrow_and_update().offer == Some(5));
        board.opened_offer(5);
        board.opened_offer(4);
        assert!(!state.has_changed().unwrap() && board.newest_offer() == Some(5));
        board.found();
        assert!(state.has_changed().unwrap() && state.borrow_and_update().was_reached);
        board.found();
        assert!(!state.has_changed().unwrap());
    }
}
