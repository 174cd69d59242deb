//! The entries of the catalogue that were signed: of what does not change, each is signed once.
//!
//! What it is not: which of them a peer is shown.

use std::collections::{HashMap, HashSet};

use keyferry_proto::{
    address::ShareName,
    catalogue::{CatalogueEntry, SignedEntry},
};

use crate::content::store::Root;

/// The entries of the catalogue as they were signed: a signature is work, and the same entry is asked for again and again.
#[derive(Debug, Default)]
pub(super) struct SignedEntries(HashMap<ShareName, (CatalogueEntry, SignedEntry)>);

impl SignedEntries {
    /// The entry, signed; by `sign` if it is not known.
    pub(super) fn get(
        &mut self,
        entry: CatalogueEntry,
        sign: impl FnOnce(&CatalogueEntry) -> SignedEntry,
    ) -> SignedEntry {
        if let Some((known, signed)) = self.0.get(&entry.name)
            && *known == entry
        {
            return signed.clone();
        }
        let signed = sign(&entry);
        self.0.insert(entry.name.clone(), (entry, signed.clone()));
        signed
    }

    /// Forgets what is not shared any more, once that is as much as what is.
    pub(super) fn forget_all_but(&mut self, roots: &[Root]) {
        if self.0.len() > 2 * roots.len() {
            let names: HashSet<_> = roots.iter().filter_map(Root::name).collect();
            self.0.retain(|name, _| names.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::{
        hash::{ContentFormat, ContentHash},
        identity::NodeSecret,
    };

    use super::*;

    fn entry(name: &str, size: u64) -> CatalogueEntry {
        let hash = ContentHash::of(name.as_bytes());
        CatalogueEntry {
            name: name.parse().unwrap(),
            hash,
            format: ContentFormat::Blob,
            size,
            files: 1,
            attributes: None,
        }
    }

    #[test]
    fn an_entry_is_signed_once_and_again_when_it_is_another() {
        let (secret, mut entries, mut signed) = (NodeSecret::from_bytes(&[1; 32]), SignedEntries::default(), 0);
        let mut ask = |size| {
            entries.get(entry("file", size), |entry| {
                signed += 1;
                SignedEntry::sign(entry, &secret)
            })
        };
        let first = ask(1);
        assert!((0..100).all(|_| ask(1) == first));
        assert_ne!(ask(2), first);
        assert_eq!(signed, 2);
    }
}
