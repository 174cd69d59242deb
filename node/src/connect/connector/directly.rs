//! From a relay to a direct path: the connector tries again and again, for as long as somebody uses the relay.
//!
//! What it is not: moving what is under way (`providers`, `crate::content::transfer`), or the ways themselves.

use std::time::{Duration, Instant};

use keyferry_proto::identity::NodeKey;
use libp2p::Multiaddr;
use tokio::time::sleep;

use super::{
    super::{sessions::PathRank, trace::Trace},
    Finder, Goal, SearchBoard,
    error::Tried,
};
use crate::net::session::Session;

/// The pause between two tries while a path may soon be open, as when a network has just changed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause; it doubles up to this once [`EAGER_PERIOD`] is over.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(30);
/// How long to try at short intervals.
const EAGER_PERIOD: Duration = Duration::from_secs(3 * 60);
/// How long one of those tries may take: the kernel repeats a dropped SYN after 1 s and 3 s, and a new try comes sooner than the
/// next repetition.
const EAGER_DEADLINE: Duration = Duration::from_secs(4);
/// How long one try may take later.
const DEADLINE: Duration = Duration::from_secs(12);

impl Finder {
    /// Gives a direct session with a node that is reached by a relay, however it comes about.
    pub(crate) async fn go_direct(&self, node: NodeKey, hints: &[Multiaddr]) -> Session {
        // The negotiation that has begun with the call may still find one, and so may the node.
        let arrival = self.sessions.direct(node);
        tokio::select! {
            session = arrival => session,
            session = self.try_directly(node, hints) => session,
        }
    }

    async fn try_directly(&self, node: NodeKey, hints: &[Multiaddr]) -> Session {
        let mut schedule = Retries::new(Instant::now());
        loop {
            let Try { pause, deadline } = schedule.next(Instant::now());
            sleep(pause).await;
            let mut tried = Tried::default();
            let board = SearchBoard::default();
            let race = self.race_to(node, hints, Goal::Direct, &Trace::Silent, &board, &mut tried);
            let raced = tokio::select! {
                raced = race => raced,
                () = self.end_of_try(&node, deadline) => {
                    tracing::debug!("no direct path was found in time");
                    continue;
                }
            };
            match raced {
                Ok(Some(session)) if PathRank::of(&session) == PathRank::Direct => return session,
                Ok(Some(_)) => tracing::debug!("another relayed path was found"),
                Ok(None) => tracing::debug!(why = ?tried.into_error(node), "there is still no direct path"),
                Err(error) => tracing::debug!(%error, "no direct path could be looked for"),
            }
        }
    }
}

/// When to try, and for how long.
struct Retries {
    began: Instant,
    pause: Duration,
}

#[derive(Debug, PartialEq, Eq)]
struct Try {
    pause: Duration,
    deadline: Duration,
}

impl Retries {
    fn new(now: Instant) -> Self {
        Self { began: now, pause: RETRY_PAUSE }
    }

    fn next(&mut self, now: Instant) -> Try {
        if now.saturating_duration_since(self.began) < EAGER_PERIOD {
            return Try { pause: RETRY_PAUSE, deadline: EAGER_DEADLINE };
        }
        self.pause = (self.pause * 2).min(MAX_RETRY_PAUSE);
        Try { pause: self.pause, deadline: DEADLINE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_every_few_seconds_at_first_and_seldom_in_the_end() {
        let now = Instant::now();
        let mut retries = Retries::new(now);

        let eager = retries.next(now + EAGER_PERIOD / 2);
        let later: Vec<Try> = (0..6).map(|_| retries.next(now + EAGER_PERIOD)).collect();

        // If a block is lifted in the middle of a try, the next one notices it at the latest.
        assert!(eager.pause + eager.deadline <= Duration::from_secs(5));
        assert!(later.is_sorted_by_key(|one| one.pause) && later.iter().all(|one| one.deadline == DEADLINE));
        assert_eq!(later.last().map(|one| one.pause), Some(MAX_RETRY_PAUSE));
    }
}
