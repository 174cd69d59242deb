//! Password algorithms, and lists of them as servers offer them (RFC 8489 §14.11, §14.12, §18.5).
//!
//! ```text
//! PASSWORD-ALGORITHMS   (number u16 | parameters' length u16 | parameters, padded to 4 bytes)+     1 MD5, 2 SHA-256: no parameters
//! PASSWORD-ALGORITHM    one of these
//! ```
//! What it is not: the algorithms; see [`Key`](super::Key).

use stun_types::attribute::{AttributeType, RawAttribute};

/// RFC 8489 §18.3.
pub(super) const PASSWORD_ALGORITHM: AttributeType = AttributeType::new(0x001d);
pub(super) const PASSWORD_ALGORITHMS: AttributeType = AttributeType::new(0x8002);

/// How a key is made of user name, realm and password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// RFC 8489 §18.5.1.1.
    Md5,
    /// RFC 8489 §18.5.1.2.
    Sha256,
}

impl PasswordAlgorithm {
    fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }

    fn of(listed: &ListedAlgorithm<'_>) -> Option<Self> {
        let is_listed = |known: &Self| known.number() == listed.number && listed.parameters.is_empty();
        [Self::Md5, Self::Sha256].into_iter().find(is_listed)
    }

    /// The value of PASSWORD-ALGORITHM.
    pub(super) fn value(self) -> [u8; 4] {
        let [high, low] = self.number().to_be_bytes();
        [high, low, 0, 0]
    }
}

/// The algorithms of a server, unknown ones among them, in the order of its preference.
///
/// The bytes are kept, since a client has to repeat them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlgorithmList {
    value: Vec<u8>,
}

impl AlgorithmList {
    /// Lists these algorithms.
    pub fn new(algorithms: &[PasswordAlgorithm]) -> Self {
        Self { value: algorithms.iter().flat_map(|algorithm| algorithm.value()).collect() }
    }

    /// Reads the value of PASSWORD-ALGORITHMS; `None` if it is none.
    pub fn read(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return None;
        }
        let mut rest = value;
        while !rest.is_empty() {
            rest = first(rest)?.1;
        }
        Some(Self { value: value.to_vec() })
    }

    /// The value of PASSWORD-ALGORITHMS.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The algorithms that this crate knows, in the order of the server's preference.
    pub fn known(&self) -> impl Iterator<Item = PasswordAlgorithm> {
        let mut rest = self.value.as_slice();
        std::iter::from_fn(move || {
            let (listed, others) = first(rest)?;
            rest = others;
            Some(PasswordAlgorithm::of(&listed))
        })
        .flatten()
    }

    pub(super) fn attribute(&self) -> RawAttribute<'_> {
        RawAttribute::new(PASSWORD_ALGORITHMS, &self.value)
    }
}

/// Reads the value of PASSWORD-ALGORITHM; `None` if this crate does not know it.
pub(super) fn read_one(value: &[u8]) -> Option<PasswordAlgorithm> {
    let (listed, rest) = first(value)?;
    PasswordAlgorithm::of(&listed).filter(|_| rest.is_empty())
}

/// An algorithm of a list, known or not.
struct ListedAlgorithm<'a> {
    number: u16,
    parameters: &'a [u8],
}

/// The first algorithm of a list, and the rest of the list.
fn first(list: &[u8]) -> Option<(ListedAlgorithm<'_>, &[u8])> {
    let (number, rest) = list.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (padded, others) = rest.split_at_checked(length.next_multiple_of(4))?;
    Some((ListedAlgorithm { number: u16::from_be_bytes(*number), parameters: &padded[..length] }, others))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_algorithms_are_kept_and_passed_over() {
        let value = [0, 9, 0, 1, 7, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0];
        let list = AlgorithmList::read(&value).unwrap();
        assert_eq!(list.value(), value);
        assert_eq!(list.known().collect::<Vec<_>>(), [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5]);
    }

    #[test]
    fn a_list_that_is_cut_off_is_refused() {
        assert_eq!(AlgorithmList::read(&[]), None);
        assert_eq!(AlgorithmList::read(&[0, 2, 0]), None);
        assert_eq!(AlgorithmList::read(&[0, 2, 0, 1]), None);
        assert_eq!(AlgorithmList::read(&[0, 2, 0, 1, 7]), None);
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = read_one(&value);
            if let Some(list) = AlgorithmList::read(&value) {
                prop_assert!(list.known().count() <= value.len() / 4);
            }
        }

        #[test]
        fn a_list_that_was_written_is_read(picks in proptest::collection::vec(any::<bool>(), 1..8)) {
            let one = |md5| if md5 { PasswordAlgorithm::Md5 } else { PasswordAlgorithm::Sha256 };
            let algorithms: Vec<_> = picks.into_iter().map(one).collect();
            let list = AlgorithmList::new(&algorithms);
            prop_assert_eq!(AlgorithmList::read(list.value()).unwrap().known().collect::<Vec<_>>(), algorithms);
        }
    }
}
