//! What is at the target when a plan is made: what of it is right already, may be replaced, or stays.

use tokio_util::sync::CancellationToken;

use super::FetchPlan;
use crate::content::transfer::{
    FetchError, KeptFiles, MAX_MISSING_LISTED,
    changes::Changes,
    staging::{
        merging::Merged,
        present::{Looking, PresentState, PresentTree, shown},
    },
};

impl FetchPlan {
    /// Looks at the folder that is at the target, if there is one.
    pub(super) fn look_at_target(&self, cancel: &CancellationToken) -> Result<(), FetchError> {
        let Some(tree) = self.tree().filter(|_| self.staging.has_target() && self.present.get().is_none()) else {
            return Ok(());
        };
        let path = self.staging.final_path();
        let looking = Looking {
            store: &self.store,
            path: &path,
            wanted: self.version.hash,
            overwrite: self.target.overwrite,
            go_on: &|| !cancel.is_cancelled(),
        };
        let present = PresentTree::look(tree, &self.staging.open_target()?, &looking)?;
        self.present.get_or_init(|| present);
        Ok(())
    }

    /// What is in the folder at the target.
    pub(in super::super) fn present(&self) -> Option<&PresentTree> {
        self.present.get()
    }

    /// The files that are to get the content of an item, by their numbers.
    pub(super) fn wanted_places(&self, index: usize) -> impl Iterator<Item = u32> {
        self.places.of_item(index).iter().copied().filter(|file| self.wants(*file))
    }

    /// Whether a file is to be written.
    pub(super) fn wants(&self, file: u32) -> bool {
        self.present().is_none_or(|present| present.wants(file))
    }

    /// Whether the file at the target is as it was found, if it is to be replaced for that.
    pub(super) fn is_target_as_found(&self) -> bool {
        self.as_written.is_none_or(|found| self.store.is_as_found(&self.staging.final_path(), &found))
    }

    /// The files of the content that were not put in their places, since somebody else's are there; `late` are those that came at the last moment.
    pub(in super::super) fn kept(&self, late: &[u32]) -> Option<KeptFiles> {
        let (tree, present) = (self.tree()?, self.present()?);
        let is_kept = |index: u32, state: PresentState| state == PresentState::Kept || late.contains(&index);
        let kept: Vec<u32> =
            present.leaves(tree).filter(|(index, state)| is_kept(*index, *state)).map(|(index, _)| index).collect();
        (!kept.is_empty()).then(|| KeptFiles {
            path: self.staging.final_path(),
            kept_count: kept.len() as u64,
            kept: kept.iter().take(MAX_MISSING_LISTED).map(|index| shown(tree, *index)).collect(),
        })
    }

    /// What was done with the folder that was at the target, if one was.
    pub(in super::super) fn changes(&self, merged: &Merged) -> Option<Changes> {
        Some(Changes::made(self.tree()?, self.present()?, merged))
    }
}
