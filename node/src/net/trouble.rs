//! Trouble: a sign that what stands may be dead, although nobody has said so, from whoever notices it to whoever holds something.
//!
//! What it is not: what is done about it. Those who gather addresses hear of it first ([`crate::reach::gather`]), since everything
//! else that is made anew leaves from those.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// What an answer may take before its absence is a sign of trouble, at least.
pub const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// The same in round trips, where those are long.
const PATIENCE_ROUND_TRIPS: u32 = 4;

/// How long to wait for an answer over something that may be dead.
pub fn patience(round_trip: Duration) -> Duration {
    LEAST_PATIENCE.max(round_trip * PATIENCE_ROUND_TRIPS)
}

/// A sign that what stands may be dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A session brings nothing although something is under way on it.
    SilentSession,
    /// A call was not answered.
    UnansweredCall,
    /// This machine has slept, or somebody has set its clock.
    Awoken,
}

/// Where signs of trouble are told, and heard. Clones are handles to the same place. Those who hear late hear of the last sign only:
/// one is as good as many.
#[derive(Debug, Clone)]
pub struct Troubles(Arc<watch::Sender<Option<Trouble>>>);

impl Default for Troubles {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Troubles {
    /// Tells of a sign.
    pub fn tell(&self, trouble: Trouble) {
        tracing::debug!(?trouble, "what stands may be dead");
        self.0.send_replace(Some(trouble));
    }

    /// Hears of the signs from now on.
    pub(crate) fn hear(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_the_way_and_is_never_less_than_a_second() {
        let patience = |ms| patience(Duration::from_millis(ms)).as_millis();
        assert_eq!([patience(0), patience(40), patience(200), patience(800)], [1000, 1000, 1000, 3200]);
    }
}
