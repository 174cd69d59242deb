//! Racing attempts at several addresses (RFC 8305, "happy eyeballs"): families interleaved, starts staggered, a failure
//! starts the next at once, the first success wins and ends the others.
//!
//! What it is not: what an attempt does. It may go as far as the proof of the peer's identity.

use std::{future::Future, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until};

/// The bounds of one race.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RaceLimits {
    /// From one start to the next, unless an attempt fails before.
    pub(crate) stagger: Duration,
    /// How many attempts there may be in all.
    pub(crate) attempts: usize,
    /// How long the whole race may take.
    pub(crate) deadline: Duration,
}

impl Default for RaceLimits {
    fn default() -> Self {
        Self { stagger: Duration::from_millis(100), attempts: super::MAX_DIALLED, deadline: Duration::from_secs(15) }
    }
}

/// Runs the race. All that failed come back if none succeeds, in the order in which they did; `late` is the error of
/// those that the deadline cut off.
pub(crate) async fn race<T, E, F, A>(
    candidates: &[SocketAddr],
    limits: RaceLimits,
    attempt: A,
    late: impl Fn() -> E,
) -> Result<T, Vec<(SocketAddr, E)>>
where
    F: Future<Output = Result<T, E>>,
    A: Fn(SocketAddr) -> F,
{
    let deadline = Instant::now() + limits.deadline;
    let mut waiting = interleave(candidates);
    waiting.truncate(limits.attempts);
    let mut waiting = waiting.into_iter();
    let mut unfinished = Vec::new();
    let mut failed = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut next_start = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some((addr, result)) = running.next() => match result {
                Ok(winner) => return Ok(winner),
                Err(error) => {
                    tracing::debug!(%addr, "an attempt failed");
                    unfinished.retain(|other| *other != addr);
                    failed.push((addr, error));
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if waiting.len() > 0 => {
                if let Some(addr) = waiting.next() {
                    unfinished.push(addr);
                    let outcome = attempt(addr);
                    running.push(async move { (addr, outcome.await) });
                }
                next_start = Instant::now() + limits.stagger;
            }
            () = sleep_until(deadline) => {
                failed.extend(unfinished.into_iter().map(|addr| (addr, late())));
                return Err(failed);
            }
        }
        if running.is_empty() && waiting.len() == 0 {
            return Err(failed);
        }
    }
}

/// Alternates between the families, beginning with the family of the first address; keeps the order within each. Twins
/// are dropped.
fn interleave(candidates: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = candidates.first().is_some_and(SocketAddr::is_ipv6);
    let (mut turn, mut other): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for addr in candidates {
        let family = if addr.is_ipv6() == first_is_v6 { &mut turn } else { &mut other };
        if !family.contains(addr) {
            family.push(*addr);
        }
    }
    let longer = turn.len().max(other.len());
    (0..longer).flat_map(|i| [turn.get(i).copied(), other.get(i).copied()]).flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    const LIMITS: RaceLimits =
        RaceLimits { stagger: Duration::from_millis(10), attempts: 4, deadline: Duration::from_millis(500) };

    fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let given = addrs(&["[::1]:1", "[::1]:2", "[::1]:1", "[::1]:3", "127.0.0.1:1", "127.0.0.1:2"]);
        let expected = addrs(&["[::1]:1", "127.0.0.1:1", "[::1]:2", "127.0.0.1:2", "[::1]:3"]);
        assert_eq!(interleave(&given), expected);
    }

    #[tokio::test]
    async fn starts_are_staggered_and_capped_and_the_deadline_ends_it() {
        let (begin, starts) = (Instant::now(), RefCell::new(Vec::new()));
        let given = addrs(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"]);
        let attempt = |addr: SocketAddr| {
            starts.borrow_mut().push((addr.port(), begin.elapsed()));
            pending::<Result<(), &str>>()
        };
        let failed = race(&given, LIMITS, attempt, || "late").await.expect_err("nobody answers");
        assert_eq!(failed, [(given[0], "late"), (given[1], "late"), (given[2], "late"), (given[3], "late")]);
        assert!(begin.elapsed() >= LIMITS.deadline);
        for (i, (port, at)) in (0u16..).zip(starts.into_inner()) {
            assert_eq!(port, i + 1);
            assert!(at >= LIMITS.stagger * u32::from(i), "{port} at {at:?}");
        }
    }

    #[tokio::test]
    async fn a_failure_starts_the_next_at_once_and_does_not_stop_the_others() {
        // A stagger beyond the deadline: only a failure can start the second attempt.
        let limits = RaceLimits { stagger: Duration::from_secs(600), deadline: Duration::from_secs(60), ..LIMITS };
        let given = addrs(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        let attempt = |addr: SocketAddr| async move {
            match addr.port() {
                1 => Err("refused"),
                _ => Ok(addr),
            }
        };
        assert_eq!(race(&given, limits, attempt, || "late").await, Ok(given[1]));
    }

    #[tokio::test]
    async fn one_that_never_answers_does_not_hold_up_the_next() {
        let given = addrs(&["127.0.0.1:1", "127.0.0.1:2"]);
        let attempt = |addr: SocketAddr| async move {
            match addr.port() {
                1 => pending().await,
                _ => Ok::<_, ()>(addr),
            }
        };
        assert_eq!(race(&given, LIMITS, attempt, || ()).await, Ok(given[1]));
    }

    #[tokio::test]
    async fn every_failure_is_reported() {
        let given = addrs(&["127.0.0.1:1", "[::1]:2"]);
        let failed = race(&given, LIMITS, |addr: SocketAddr| async move { Err::<(), _>(addr.port()) }, || 0).await;
        assert_eq!(failed, Err(vec![(given[0], 1), (given[1], 2)]));
        assert_eq!(race(&[], LIMITS, |_| async { Err::<(), _>(1) }, || 0).await, Err(vec![]));
    }
}
