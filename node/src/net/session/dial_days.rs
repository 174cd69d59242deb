//! By which day a dialler proves what it seeks, and by which days a listener takes a proof.
//!
//! Both go by this machine's clock and one day beside it. Where others say that the clock is wrong, the dialler goes by theirs: whoever is
//! sought takes a day beside its own, so that a lie about up to a day shuts nobody out whose clock is right. A contact whose clock has shown
//! another day is dialled by that day.
//!
//! What it is not: the proofs (`keyferry_proto::dialling`), or what others say of the clock (`crate::reach::rendezvous`).

use std::sync::{Mutex, OnceLock, PoisonError};

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::dialling::Sought;

use super::error::SessionError;
use crate::base::{
    clock::{ClockSkew, possible_times},
    data_dir::{ContactDays, DayShift},
};

/// The days of one node's proofs.
#[derive(Debug, Default)]
pub(super) struct DialDays {
    skew: Mutex<Option<ClockSkew>>,
    contacts: OnceLock<ContactDays>,
}

/// The day of one dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DialDay {
    pub(super) day: UtcDay,
    /// Whether it is the one that the contact has shown.
    is_as_shown: bool,
}

impl DialDays {
    /// Notes how far this machine's clock is from those of others.
    pub(super) fn set_skew(&self, skew: Option<ClockSkew>) {
        *self.skew.lock().unwrap_or_else(PoisonError::into_inner) = skew;
    }

    /// Says where it stands which days contacts have shown; once.
    pub(super) fn set_contacts(&self, contacts: ContactDays) {
        // A second one would be that of the same data folder.
        let _ = self.contacts.set(contacts);
    }

    /// By which day to prove what is sought.
    pub(super) fn to_dial(&self, sought: &Sought, own: UnixTime) -> DialDay {
        let shown = match (sought, self.contacts.get()) {
            (Sought::Node(node), Some(contacts)) => contacts.believed(node),
            _ => None,
        };
        if let Some(shift) = shown {
            return DialDay { day: shift.from(own.day()), is_as_shown: true };
        }
        let skew = *self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        let day = possible_times(own, skew).last().map_or(own.day(), |time| time.day());
        DialDay { day, is_as_shown: false }
    }

    /// Notes how a dial by a day has ended: that of a contact that does not answer to it is doubted, and believed again where another one
    /// is not answered either.
    pub(super) fn dialled<T>(&self, sought: &Sought, day: DialDay, ended: &Result<T, SessionError>) {
        if let (Sought::Node(node), Some(contacts), Err(SessionError::NotThere)) = (sought, self.contacts.get(), ended)
        {
            contacts.doubt(node, day.is_as_shown);
        }
    }

    /// The days by which a proof is taken.
    pub(super) fn to_take(&self, own: UnixTime) -> Vec<UtcDay> {
        let mut days = days_about(own.day()).to_vec();
        let shifts = self.contacts.get().map_or_else(Vec::new, ContactDays::shifts);
        for day in shifts.into_iter().flat_map(|shift| days_about(shift.from(own.day()))) {
            if !days.contains(&day) {
                days.push(day);
            }
        }
        days
    }
}

/// The days that clocks may show that are up to a day off.
pub(super) fn days_about(today: UtcDay) -> [UtcDay; 3] {
    [-1, 0, 1].map(|days| DayShift(days).from(today))
}

#[cfg(test)]
mod tests {
    use keyferry_proto::identity::{NodeKey, NodeSecret};

    use super::*;

    const NOON: UnixTime = UnixTime(20_000 * 86_400 + 43_200);

    fn node(seed: u8) -> NodeKey {
        NodeSecret::from_bytes(&[seed; 32]).public()
    }

    fn dialled(days: &DialDays, seed: u8) -> u32 {
        days.to_dial(&Sought::Node(node(seed)), NOON).day.0
    }

    #[test]
    fn a_dialler_goes_by_the_clocks_of_others_where_its_own_is_wrong_by_up_to_a_day() {
        let days = DialDays::default();
        assert_eq!(dialled(&days, 1), 20_000);
        for (ahead_secs, day) in [(20 * 3600, 19_999), (-20 * 3600, 20_001), (3600, 20_000), (50 * 3600, 20_000)] {
            days.set_skew(Some(ClockSkew { ahead_secs, hosts: 2 }));
            assert_eq!(dialled(&days, 1), day, "{ahead_secs}");
        }
    }

    #[tokio::test]
    async fn a_contact_is_dialled_by_the_day_that_it_has_shown_until_that_is_not_answered() {
        let (home, days) = (tempfile::tempdir().unwrap(), DialDays::default());
        let contacts = ContactDays::open(home.path());
        days.set_contacts(contacts.clone());
        contacts.proved(node(1), DayShift(2)).await;
        assert_eq!((dialled(&days, 1), dialled(&days, 2)), (20_002, 20_000));
        assert_eq!(
            days.to_take(NOON).iter().map(|day| day.0).collect::<Vec<_>>(),
            [19_999, 20_000, 20_001, 20_002, 20_003]
        );
        let sought = Sought::Node(node(1));
        // At two of its addresses at once.
        let day = days.to_dial(&sought, NOON);
        for _ in 0..2 {
            days.dialled::<()>(&sought, day, &Err(SessionError::NotThere));
        }
        assert_eq!(dialled(&days, 1), 20_000);
        let day = days.to_dial(&sought, NOON);
        days.dialled(&sought, day, &Ok(()));
        assert_eq!(dialled(&days, 1), 20_000);
        days.dialled::<()>(&sought, day, &Err(SessionError::NotThere));
        assert_eq!(dialled(&days, 1), 20_002);
    }
}
