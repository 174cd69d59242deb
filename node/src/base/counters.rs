//! Counters of what a part of the node does and refuses: typed for code, named for `status`.
//!
//! What it is not: a metrics library, or anything with a history.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, and that several tasks count up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    /// Counts several.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares a struct of [`Counter`]s. Each has a field for code, and a name under which `status` shows it.
macro_rules! counters {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $Counters:ident {
            $($(#[$field_attribute:meta])* $field_visibility:vis $field:ident = $name:literal,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Default)]
        $visibility struct $Counters {
            $($(#[$field_attribute])* $field_visibility $field: $crate::base::counters::Counter,)+
        }

        impl $Counters {
            /// Returns the counts by name, for `status`.
            $visibility fn by_name(&self) -> impl Iterator<Item = (String, u64)> {
                [$(($name, self.$field.get())),+].into_iter().map(|(name, count)| (name.to_owned(), count))
            }
        }
    };
}

pub(crate) use counters;

#[cfg(test)]
mod tests {
    counters! {
        /// What a bell does.
        struct BellCounters {
            rung = "bell_rung",
            cracked = "bell_cracked",
        }
    }

    #[test]
    fn counts_by_field_and_tells_by_name() {
        let counters = BellCounters::default();
        counters.rung.add_one();
        counters.rung.add(2);
        assert_eq!((counters.rung.get(), counters.cracked.get()), (3, 0));
        assert!(counters.by_name().eq([("bell_rung".to_owned(), 3), ("bell_cracked".to_owned(), 0)]));
    }
}
