//! What can be wrong with the index.

use crate::content::store::StoreError;

/// Why the index gave no answer.
#[derive(Debug, thiserror::Error)]
pub(in crate::content::store) enum IndexError {
    /// It says something that cannot be true: make it again.
    #[error("{0}")]
    Damaged(String),
    /// The disk refused.
    #[error(transparent)]
    Disk(StoreError),
}
