//! Priorities of candidates, of what a check may reveal, and of pairs (RFC 8445 §5.1.2, §6.1.2.3; RFC 6544 §4.2).
//!
//! ```text
//! priority          type preference (7 bits) | local preference (16 bits) | 256 − component (8 bits)
//! local preference  direction preference (3 bits) | other preference (13 bits)
//! ```
//! A peer's numbers are parsed into this type, so that no arithmetic on them overflows.

/// The component of all candidates: a file has one.
const COMPONENT: u32 = 1;
/// Where the direction preference stands.
const DIRECTION_SHIFT: u32 = 21;
/// Other preference and component.
const BELOW_DIRECTION: u32 = (1 << DIRECTION_SHIFT) - 1;

/// The priority of a candidate, from 1 to 2³¹ − 1; greater is better (RFC 8445 §5.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(try_from = "u32", into = "u32"))]
pub struct Priority(u32);

/// A number that is no priority of a candidate. Whoever sent it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a priority from 1 to {}, got {got}", Priority::GREATEST.0)]
pub struct NoPriority {
    /// The number.
    pub got: u32,
}

impl Priority {
    /// The least that there is.
    pub const LEAST: Self = Self(1);
    /// The greatest that there is.
    pub const GREATEST: Self = Self((1 << 31) - 1);

    /// The priority of a candidate with these preferences; of the last one 13 bits count (RFC 8445 §5.1.2.1).
    pub(super) fn new(type_preference: u8, direction_preference: u8, other_preference: u16) -> Self {
        let below = u32::from(other_preference & 0x1fff) << 8 | (256 - COMPONENT);
        Self::of_parts(type_preference, direction_preference, below)
    }

    /// The same with other preferences of type and direction.
    pub(super) fn with_preferences(self, type_preference: u8, direction_preference: u8) -> Self {
        Self::of_parts(type_preference, direction_preference, self.0 & BELOW_DIRECTION)
    }

    /// The direction preference (RFC 6544 §4.2).
    pub(super) fn direction_preference(self) -> u8 {
        (self.0 >> DIRECTION_SHIFT & 7) as u8
    }

    fn of_parts(type_preference: u8, direction_preference: u8, below: u32) -> Self {
        let (kind, direction) = (u32::from(type_preference & 0x7f), u32::from(direction_preference & 7));
        Self(kind << 24 | direction << DIRECTION_SHIFT | below)
    }

    /// The priority of a pair (RFC 8445 §6.1.2.3).
    pub(super) fn of_pair(controlling: Self, controlled: Self) -> u64 {
        let (lesser, greater) = (controlling.min(controlled), controlling.max(controlled));
        (u64::from(lesser.0) << 32) + 2 * u64::from(greater.0) + u64::from(controlling > controlled)
    }
}

impl TryFrom<u32> for Priority {
    type Error = NoPriority;

    fn try_from(number: u32) -> Result<Self, NoPriority> {
        let priority = Self(number);
        let is_allowed = (Self::LEAST..=Self::GREATEST).contains(&priority);
        if is_allowed { Ok(priority) } else { Err(NoPriority { got: number }) }
    }
}

impl From<Priority> for u32 {
    fn from(priority: Priority) -> Self {
        priority.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn priority(number: u32) -> Priority {
        Priority::try_from(number).expect("a priority")
    }

    #[test]
    fn a_pair_has_the_priority_of_the_formula() {
        // 2^32·min + 2·max + (controlling > controlled).
        assert_eq!(Priority::of_pair(priority(5), priority(3)), (3 << 32) + 10 + 1);
        assert_eq!(Priority::of_pair(priority(3), priority(5)), (3 << 32) + 10);
        assert_eq!(Priority::of_pair(priority(4), priority(4)), (4 << 32) + 8);
    }

    #[test]
    fn what_is_no_priority_is_refused() {
        for got in [0, 1 << 31, u32::MAX] {
            assert_eq!(Priority::try_from(got), Err(NoPriority { got }));
        }
        assert_eq!([priority(1), priority((1 << 31) - 1)], [Priority::LEAST, Priority::GREATEST]);
    }

    proptest! {
        #[test]
        fn no_arithmetic_on_a_priority_leaves_its_range(one in 1_u32..1 << 31, other in 1_u32..1 << 31) {
            let changed = priority(one).with_preferences(127, 7);
            prop_assert!((Priority::LEAST..=Priority::GREATEST).contains(&changed));
            prop_assert!(Priority::of_pair(priority(one), priority(other)) > 0);
        }
    }
}
