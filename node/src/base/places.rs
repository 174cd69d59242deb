//! Places that strangers take, as tasks hold them: given back when dropped, told when somebody else gets them, and waited for no
//! longer than is said.
//!
//! What it is not: the choice of who gives way ([`PlaceTable`]).

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};

pub(crate) use super::place_table::{PlaceClaim, PlaceLimits, PlacesFull};
use super::place_table::{PlaceNumber, PlaceTable};

/// A limited number of places. Clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Places<K>(Arc<PlacesState<K>>);

struct PlacesState<K> {
    held: Mutex<HeldPlaces<K>>,
    /// Told when a place has become free, or idle, for those who wait for one.
    changed: Notify,
}

struct HeldPlaces<K> {
    table: PlaceTable<K>,
    tell: HashMap<PlaceNumber, oneshot::Sender<()>>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<K: Copy + Eq> {
    places: Places<K>,
    number: PlaceNumber,
    /// Resolves when another one gets this place.
    pub(crate) pushed_out: oneshot::Receiver<()>,
}

/// Keeps a place in use for as long as it lives. The place itself may be gone before.
#[derive(Debug)]
pub(crate) struct PlaceUse<K: Copy + Eq> {
    places: Places<K>,
    number: PlaceNumber,
}

/// Marks uses of a place, for whoever does not hold it.
#[derive(Debug, Clone)]
pub(crate) struct PlaceUser<K> {
    places: Places<K>,
    number: PlaceNumber,
}

impl<K: Copy + Eq> Places<K> {
    pub(crate) fn new(limits: PlaceLimits) -> Self {
        let held = HeldPlaces { table: PlaceTable::new(limits), tell: HashMap::new() };
        Self(Arc::new(PlacesState { held: Mutex::new(held), changed: Notify::new() }))
    }

    /// Takes a place; somebody else may lose theirs.
    pub(crate) fn enter(&self, claim: PlaceClaim<K>) -> Result<Place<K>, PlacesFull> {
        let (sender, pushed_out) = oneshot::channel();
        let mut held = self.held();
        let given = held.table.enter(claim, Instant::now().into_std())?;
        if let Some(loser) = given.pushed_out.and_then(|number| held.tell.remove(&number)) {
            let _ = loser.send(());
        }
        held.tell.insert(given.number, sender);
        Ok(Place { places: self.clone(), number: given.number, pushed_out })
    }

    /// The same, and waits for it no longer than `limit`. Cancel-safe.
    pub(crate) async fn enter_within(&self, claim: PlaceClaim<K>, limit: Duration) -> Result<Place<K>, PlacesFull> {
        let deadline = Instant::now() + limit;
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Before the look, so that nothing that happens after it is missed.
            changed.as_mut().enable();
            let full = match self.enter(claim) {
                Ok(place) => return Ok(place),
                Err(full) => full,
            };
            if Instant::now() >= deadline {
                return Err(full);
            }
            let again = full.until.map_or(deadline, |until| deadline.min(until.into()));
            tokio::select! {
                () = changed => {}
                () = sleep_until(again) => {}
            }
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.held().table.len()
    }

    fn held(&self) -> MutexGuard<'_, HeldPlaces<K>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_use(&self, number: PlaceNumber) -> PlaceUse<K> {
        self.held().table.begin_use(number);
        PlaceUse { places: self.clone(), number }
    }
}

impl<K: Copy + Eq> Place<K> {
    /// By which others mark that the place is in use.
    pub(crate) fn user(&self) -> PlaceUser<K> {
        PlaceUser { places: self.places.clone(), number: self.number }
    }
}

impl<K: Copy + Eq> PlaceUser<K> {
    /// Waits until the place has not been used for so long; for ever if it is gone. Cancel-safe.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            let (now, idle_since) = (Instant::now(), self.places.held().table.idle_since(self.number));
            // While it is used, it cannot have been idle for so long before this time from now.
            let earliest = idle_since.map_or(now, Instant::from_std) + limit;
            if earliest <= now {
                return;
            }
            sleep_until(earliest).await;
        }
    }

    /// Marks the place as used for as long as the result lives.
    pub(crate) fn begin_use(&self) -> PlaceUse<K> {
        self.places.begin_use(self.number)
    }
}

impl<K> fmt::Debug for Places<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Places")
    }
}

impl<K: Copy + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.places.held();
        held.table.leave(self.number);
        held.tell.remove(&self.number);
        drop(held);
        self.places.0.changed.notify_waiters();
    }
}

impl<K: Copy + Eq> Drop for PlaceUse<K> {
    fn drop(&mut self) {
        self.places.held().table.end_use(self.number, Instant::now().into_std());
        self.places.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const LIMITS: PlaceLimits =
        PlaceLimits { in_all: 2, for_contacts: 0, per_host: 2, per_key: 2, grace: Duration::from_secs(10) };

    fn of(host: u8) -> PlaceClaim<u32> {
        PlaceClaim::of_host(IpAddr::from([192, 0, 2, host]))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_the_first_place_that_is_given_back() {
        let places = Places::new(LIMITS);
        let (first, _second) = (places.enter(of(1)).unwrap(), places.enter(of(2)).unwrap());
        let waits = tokio::spawn({
            let places = places.clone();
            async move { places.enter_within(of(3), Duration::from_secs(5)).await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waits.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_takes_what_becomes_idle_for_long_enough_and_gives_up_at_its_deadline() {
        let places = Places::new(LIMITS);
        let (mut first, second) = (places.enter(of(1)).unwrap(), places.enter(of(2)).unwrap());
        let _used = second.user().begin_use();
        let begin = Instant::now();

        assert!(places.enter_within(of(3), Duration::from_secs(5)).await.is_err());
        assert_eq!(begin.elapsed(), Duration::from_secs(5));
        assert!(first.pushed_out.try_recv().is_err());

        let _third = places.enter_within(of(3), Duration::from_secs(60)).await.unwrap();
        assert_eq!(begin.elapsed(), LIMITS.grace);
        assert!(first.pushed_out.try_recv().is_ok());
        drop(first);
        assert_eq!(places.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_idle_once_nobody_has_used_it_for_long_enough() {
        let places = Places::new(LIMITS);
        let place = places.enter(of(1)).unwrap();
        let (user, begin) = (place.user(), Instant::now());
        let in_use = user.begin_use();
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            drop(in_use);
        });
        user.idle_for(Duration::from_secs(60)).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(160));
        later.await.unwrap();
    }
}
