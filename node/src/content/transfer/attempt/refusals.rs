//! Which items providers do not give, and why: what a folder goes without, if nobody else has them.
//!
//! What it is not: who is asked for what; the schedule knows that too, provider by provider.

use std::{collections::BTreeMap, ops::Range};

use keyferry_proto::{
    message::Refusal,
    transfer::{layout::Layout, units::UnitRanges},
};

/// The items that somebody has refused. There are no more of them than the layout has.
#[derive(Default)]
pub(super) struct RefusedItems(BTreeMap<usize, Refusal>);

impl RefusedItems {
    /// Notes why the items of these units were refused.
    pub(super) fn add(&mut self, layout: &Layout, units: Range<u64>, why: Refusal) {
        self.0.extend(layout.select(&UnitRanges::from(units)).map(|(index, ..)| (index, why)));
    }

    /// The items of these units with the reasons, if each of them was refused because of its file.
    pub(super) fn all_of(&self, layout: &Layout, units: &UnitRanges) -> Option<Vec<(usize, Refusal)>> {
        let of_file = |why: &Refusal| match why {
            Refusal::NotFound | Refusal::Changed | Refusal::Gone | Refusal::Unreadable => Some(*why),
            Refusal::Busy | Refusal::Policy => None,
        };
        layout.select(units).map(|(index, ..)| Some((index, of_file(self.0.get(&index)?)?))).collect()
    }
}
