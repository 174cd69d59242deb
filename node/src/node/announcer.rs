//! Keeps what the DHT says about this node up to date: its offer, and that it has what it gives to everybody.
//!
//! What it is not: the DHT (`crate::reach::rendezvous`), or the gathering of candidates (`crate::reach::gather`).

#[cfg(test)]
mod linking;
mod reachability;
mod schedule;
mod sequence;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::{
    identity::NodeSecret,
    offer::{Offer, OfferError, RecordKey, SignedOffer, USUAL_LIFETIME, content_record_key, seal},
};
use tokio::sync::{Notify, watch};

pub(super) use self::sequence::Sequence;
use self::{
    reachability::Reachability,
    schedule::{OfferSchedule, REPUBLISH_EVERY},
};
use crate::{
    base::clock,
    content::store::Store,
    net::{path::RelayMode, session::SessionTls},
    reach::{
        gather::Gathered,
        rendezvous::{PublishError, Rendezvous},
    },
};

/// How long to wait for further changes of the node's addresses after the first.
const SETTLE: Duration = Duration::from_millis(100);
/// How long an offer waits for a way in from outside, after the start or when the last one is lost. A peer that looks at that moment would find and believe an offer
/// without one, and DHTs forget slowly.
const OFFER_PATIENCE: Duration = Duration::from_secs(2);
/// Roots that a node announces by their hash; further ones are reached by the node's key alone.
const MAX_ANNOUNCED_ROOTS: usize = crate::reach::rendezvous::MAX_PROVIDED;

/// Why an offer was not published. The network's fault, or this node's own.
#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error(transparent)]
    Rendezvous(#[from] PublishError),
}

/// The task that announces.
pub(crate) struct Announcer {
    pub(crate) gathered: watch::Receiver<Gathered>,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) secret: NodeSecret,
    pub(crate) store: Store,
    pub(crate) tls: Arc<SessionTls>,
    /// Signalled when the store's roots have changed.
    pub(crate) roots_changed: Arc<Notify>,
    pub(crate) relay_mode: RelayMode,
    /// Signalled when the machine's clock was set, or it has slept.
    pub(crate) clock_set: Arc<Notify>,
    pub(super) sequence: Sequence,
}

/// Since when there is no way in from outside although one is expected: when the node has just started, or has lost its relays and
/// asks them anew.
#[derive(Debug, Default)]
struct WayIn {
    missing_since: Option<Instant>,
}

impl WayIn {
    /// For how long it is too early to publish an offer, if it is.
    fn early_for(&mut self, now: Instant, is_expected: bool) -> Option<Duration> {
        if !is_expected {
            self.missing_since = None;
            return None;
        }
        let late_at = *self.missing_since.get_or_insert(now) + OFFER_PATIENCE;
        late_at.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

impl Announcer {
    /// Announces until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut announced = HashSet::new();
        let mut schedule = OfferSchedule::default();
        let mut way_in = WayIn::default();
        let mut status = self.rendezvous.status();
        // Contents are sought by another tag each day. Whoever changes the roots tells TLS.
        let mut tagged_for = None;
        loop {
            let (reachability, early_for, times) = {
                let (gathered, status) = (self.gathered.borrow_and_update(), status.borrow_and_update());
                let reachability = Reachability::new(&gathered, &status.circuits, self.relay_mode);
                let expects_more = reachability.expects_more(status.public, status.connected, status.wan_peers);
                let times = clock::possible_times(clock::now(), status.clock);
                (reachability, way_in.early_for(Instant::now(), expects_more), times)
            };
            let mut pause = REPUBLISH_EVERY;
            if let Some(early_for) = early_for {
                pause = early_for;
            } else if reachability != Reachability::default() {
                schedule.update(Instant::now(), &times, &reachability, rand::random);
                if let Some((day, due)) = schedule.next()
                    && due <= Instant::now()
                {
                    let published = self.publish(&reachability, day).await;
                    schedule.done(Instant::now(), day, published.is_ok(), rand::random());
                    if let Err(error) = published {
                        tracing::debug!(%error, "the offer was not published");
                    }
                }
                let due = schedule.next().map(|(_, due)| due.saturating_duration_since(Instant::now()));
                pause = due.unwrap_or(REPUBLISH_EVERY);
            }
            let today = clock::now().day();
            if tagged_for.replace(today) != Some(today) {
                self.tls.set_contents(self.store.announced(), today);
            }
            self.announce_roots(&mut announced).await;
            tokio::select! {
                () = self.roots_changed.notified() => {}
                // What was put may hold no longer, or not yet.
                () = self.clock_set.notified() => schedule = OfferSchedule::default(),
                () = tokio::time::sleep(pause) => {}
                // Changes come in bursts.
                Ok(()) = self.gathered.changed() => tokio::time::sleep(SETTLE).await,
                Ok(()) = status.changed() => tokio::time::sleep(SETTLE).await,
            }
        }
    }

    /// Publishes the offer of a day. Each is signed for its day alone, so that no two records have a sequence or an expiry in common.
    async fn publish(&mut self, reachability: &Reachability, day: UtcDay) -> Result<(), AnnounceError> {
        let sequence = self.sequence.next(clock::now_ms()).await;
        let offer = offer(reachability, sequence, clock::now());
        let signed = SignedOffer::sign(offer, &self.secret)?;
        self.rendezvous.publish(seal(&signed, &self.secret, day, rand::random())?).await?;
        tracing::info!(
            candidates = reachability.candidates.len(),
            circuits = reachability.circuits.len(),
            "published an offer"
        );
        Ok(())
    }

    /// Announces what this node gives to everybody. Whoever looks that up dials the addresses in the record, so a node that hides
    /// its addresses announces nothing.
    async fn announce_roots(&self, announced: &mut HashSet<RecordKey>) {
        if !self.relay_mode.allows_direct() {
            return;
        }
        let contents = self.store.announced();
        let wanted: HashSet<RecordKey> = contents.iter().take(MAX_ANNOUNCED_ROOTS).map(content_record_key).collect();
        for key in wanted.difference(announced).copied().collect::<Vec<_>>() {
            if self.rendezvous.provide(key).await.is_ok() {
                announced.insert(key);
            }
        }
        for key in announced.difference(&wanted).copied().collect::<Vec<_>>() {
            self.rendezvous.stop_providing(key).await;
            announced.remove(&key);
        }
    }
}

/// What an offer says that is made now.
fn offer(reachability: &Reachability, sequence: u64, now: UnixTime) -> Offer {
    Offer {
        candidates: reachability.candidates.clone(),
        signalling: reachability.circuits.clone(),
        sequence,
        expires: now.plus(USUAL_LIFETIME),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_waits_for_a_way_in_each_time_that_one_is_lost_and_for_so_long_only() {
        let (mut way_in, start) = (WayIn::default(), Instant::now());
        for start in [start, start + Duration::from_secs(100)] {
            assert_eq!(way_in.early_for(start, true), Some(OFFER_PATIENCE));
            assert_eq!(way_in.early_for(start + OFFER_PATIENCE / 2, true), Some(OFFER_PATIENCE / 2));
            assert_eq!(way_in.early_for(start + OFFER_PATIENCE, true), None);
            assert_eq!(way_in.early_for(start + OFFER_PATIENCE * 9, true), None);
            assert_eq!(way_in.early_for(start + OFFER_PATIENCE * 9, false), None);
        }
    }
}
