//! Twins: other running nodes with this node's own key, as there are where a data folder was copied. Where it is told that one was met, and heard.
//!
//! Nothing but a proof of the own secret key makes one, so that no stranger does.
//!
//! What it is not: the search for them (`crate::connect::connector::twins`).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use keyferry_net::time::UnixTime;
use tokio::sync::Notify;

/// A meeting is over, and the next one is news, when a twin has not been met for so long: longer than from one look for them to the next but one.
const OVER_AFTER: Duration = Duration::from_secs(150 * 60);

/// How a twin was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TwinEncounter {
    /// This node has dialled it at this address.
    Dialled(SocketAddr),
    /// It has dialled this node, from this host.
    DialledFrom(IpAddr),
    /// One has called the other, through a third node.
    Called,
    /// It publishes offers of its own. It was not reached.
    Published,
}

/// A meeting with a twin, which lasts for as long as it is met again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TwinMeeting {
    /// Since when.
    pub since: UnixTime,
    /// How it was met first, or the first time that it was found at an address.
    pub by: TwinEncounter,
}

/// Where meetings are told, and heard. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct Twins(Arc<TwinBoard>);

#[derive(Debug, Default)]
struct TwinBoard {
    state: Mutex<TwinState>,
    news: Notify,
}

#[derive(Debug, Default)]
struct TwinState {
    meeting: Option<TwinMeeting>,
    last: Option<Instant>,
    is_untold: bool,
}

impl Twins {
    /// Tells that a twin has proven to be one. What comes of one meeting is news once.
    pub(crate) fn met(&self, by: TwinEncounter, now: Instant, clock: UnixTime) {
        let mut state = self.state();
        let is_new = !state.is_under_way(now);
        state.last = Some(now);
        match &mut state.meeting {
            Some(meeting) if !is_new => {
                if !matches!(meeting.by, TwinEncounter::Dialled(_)) && matches!(by, TwinEncounter::Dialled(_)) {
                    meeting.by = by;
                }
            }
            meeting => *meeting = Some(TwinMeeting { since: clock, by }),
        }
        if is_new {
            state.is_untold = true;
            tracing::warn!("another running node has this node's key");
            self.0.news.notify_one();
        }
    }

    /// The meeting that is under way, if one is.
    pub(crate) fn meeting(&self, now: Instant) -> Option<TwinMeeting> {
        let state = self.state();
        state.meeting.filter(|_| state.is_under_way(now))
    }

    /// Waits for a meeting that nobody was told of, and takes it to be told. Cancel-safe.
    pub(crate) async fn untold(&self) -> TwinMeeting {
        loop {
            if let Some(meeting) = self.take_untold() {
                return meeting;
            }
            self.0.news.notified().await;
        }
    }

    fn take_untold(&self) -> Option<TwinMeeting> {
        let mut state = self.state();
        std::mem::take(&mut state.is_untold).then_some(state.meeting).flatten()
    }

    fn state(&self) -> MutexGuard<'_, TwinState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TwinState {
    fn is_under_way(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < OVER_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const NOON: UnixTime = UnixTime(20_000 * 86_400 + 43_200);

    fn from(last: u8) -> TwinEncounter {
        TwinEncounter::DialledFrom([192, 0, 2, last].into())
    }

    #[test]
    fn a_meeting_is_told_once_however_often_the_twin_is_met_and_the_next_one_again() {
        let (twins, start) = (Twins::default(), Instant::now());
        assert_eq!((twins.meeting(start), twins.untold().now_or_never()), (None, None));
        let half = OVER_AFTER / 2;
        for number in 0..10 {
            twins.met(from(1), start + half * number, NOON);
        }
        let meeting = TwinMeeting { since: NOON, by: from(1) };
        assert_eq!(twins.untold().now_or_never(), Some(meeting));
        assert_eq!(twins.untold().now_or_never(), None);
        assert_eq!(twins.meeting(start + half * 10), Some(meeting));

        let later = start + half * 9 + OVER_AFTER;
        assert_eq!(twins.meeting(later), None);
        twins.met(from(2), later, NOON);
        assert_eq!(twins.untold().now_or_never().map(|meeting| meeting.by), Some(from(2)));
    }

    #[test]
    fn the_address_at_which_a_twin_is_found_is_kept() {
        let (twins, now) = (Twins::default(), Instant::now());
        let at = TwinEncounter::Dialled("192.0.2.7:4600".parse().unwrap());
        for by in [TwinEncounter::Called, from(1), at, from(2), TwinEncounter::Published] {
            twins.met(by, now, NOON);
        }
        assert_eq!(twins.untold().now_or_never(), Some(TwinMeeting { since: NOON, by: at }));
    }

    #[tokio::test]
    async fn whoever_waits_hears_and_one_of_them_takes_it() {
        let twins = Twins::default();
        let wait = |twins: Twins| tokio::spawn(async move { twins.untold().await });
        let (gone, waiting) = (wait(twins.clone()), wait(twins.clone()));
        tokio::task::yield_now().await;
        gone.abort();
        twins.met(from(1), Instant::now(), NOON);
        assert_eq!(waiting.await.unwrap().by, from(1));
        assert_eq!(twins.untold().now_or_never(), None);
    }
}
