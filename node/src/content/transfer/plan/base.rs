//! Files of an older version as a base for the newer one: what is the same at the same place in both need not be fetched.
//!
//! Which groups are the same is told by the parents of the newer one, which come first, without any group.
//!
//! What it is not: a search for bytes that have moved within a file.

use std::fs::File;

use keyferry_proto::transfer::{groups::GROUP_LEN, units::UnitRanges};
use tokio_util::sync::CancellationToken;

use super::{FetchPlan, FilePlace};
use crate::content::transfer::FetchError;

impl FetchPlan {
    /// The items of several groups of which nothing is here, but a file of an older version in their place.
    pub(in super::super) fn items_with_base(&self, have: &UnitRanges) -> Result<Vec<usize>, FetchError> {
        let mut with_base = Vec::new();
        for (index, item) in self.layout.items().iter().enumerate() {
            let is_of_interest = item.units > 1 && !self.is_manifest(index) && have.slice(item.unit_range()).is_empty();
            if is_of_interest && self.has_base(&self.first_place(index)?)? {
                with_base.push(index);
            }
        }
        Ok(with_base)
    }

    /// Takes over from the base of an item what is the same in it, by the parents of the item that have come. Returns the units of that.
    pub(in super::super) fn take_over_base(
        &self,
        index: usize,
        cancel: &CancellationToken,
    ) -> Result<UnitRanges, FetchError> {
        let (item, place) = (&self.layout.items()[index], self.first_place(index)?);
        let outboard = self.store.partial_outboard(item.hash, item.size)?;
        if self.staging.len_of(&place.relative) == 0 {
            let Some(base) = self.base_at_target(&place)? else { return Ok(UnitRanges::empty()) };
            if !outboard.resembles(&base, item.hash, item.size)? {
                return Ok(UnitRanges::empty());
            }
            let staged = self.staging.open_file(&place.relative, &place.attributes)?;
            if let Err(error) = self.copy(&base, &staged, item.size, &place.relative, cancel)? {
                tracing::debug!(%error, "the former version cannot be read to its end");
            }
        }
        // The copy is what counts: the base is the user's, who may change it at any time.
        let Some(staged) = self.staging.open_existing(&place.relative)? else { return Ok(UnitRanges::empty()) };
        let groups = outboard.verified_groups(&staged, item.hash, item.size)?;
        Ok(groups.iter().map(|range| item.first_unit + range.start..item.first_unit + range.end).collect())
    }

    fn has_base(&self, place: &FilePlace) -> Result<bool, FetchError> {
        if self.staging.len_of(&place.relative) >= GROUP_LEN as u64 {
            return Ok(true);
        }
        Ok(self.base_at_target(place)?.is_some())
    }

    /// The file at the target that an item is to replace, if anything of it can be the same.
    fn base_at_target(&self, place: &FilePlace) -> Result<Option<File>, FetchError> {
        let base = self.staging.open_at_target(&place.relative)?;
        Ok(base.filter(|base| base.metadata().is_ok_and(|found| found.len() >= GROUP_LEN as u64)))
    }
}
