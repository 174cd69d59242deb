//! The nonce cookie (RFC 8489 §9.2): which security features a server has, told within the nonce, so that nobody on the way can take
//! them out of a challenge without the server noticing.
//!
//! What it is not: the features.

/// What a nonce with security features begins with.
const COOKIE: &str = "obMatJos2";
/// The characters of base64 (RFC 4648 §4) for the 24 bits of features.
const FEATURES_LEN: usize = 4;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bit 0 is the leftmost of 24 (RFC 8489 §18.1).
const PASSWORD_ALGORITHMS: u32 = 1 << 23;
const USERNAME_ANONYMITY: u32 = 1 << 22;

/// The security features that a nonce tells (RFC 8489 §18.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecurityFeatures {
    /// The challenge has PASSWORD-ALGORITHMS.
    pub password_algorithms: bool,
    /// The server takes USERHASH in place of USERNAME.
    pub username_anonymity: bool,
}

impl SecurityFeatures {
    /// The nonce that tells these features and goes on with `rest`.
    pub fn nonce(self, rest: &str) -> String {
        let bits = if self.password_algorithms { PASSWORD_ALGORITHMS } else { 0 }
            | if self.username_anonymity { USERNAME_ANONYMITY } else { 0 };
        let digit = |shift: u32| char::from(BASE64[(bits >> shift & 0x3f) as usize]);
        let features: String = [18, 12, 6, 0].into_iter().map(digit).collect();
        format!("{COOKIE}{features}{rest}")
    }

    /// The features that a nonce tells; none where it has no cookie.
    pub fn of_nonce(nonce: &str) -> Self {
        Self::bits(nonce).map_or(Self::default(), |bits| Self {
            password_algorithms: bits & PASSWORD_ALGORITHMS != 0,
            username_anonymity: bits & USERNAME_ANONYMITY != 0,
        })
    }

    fn bits(nonce: &str) -> Option<u32> {
        let features = nonce.strip_prefix(COOKIE)?.as_bytes().get(..FEATURES_LEN)?;
        features.iter().try_fold(0, |bits, character| {
            let digit = BASE64.iter().position(|known| known == character)?;
            Some(bits << 6 | u32::try_from(digit).ok()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_leftmost_bits_are_the_features() {
        let both = SecurityFeatures { password_algorithms: true, username_anonymity: true };
        assert_eq!(both.nonce("rest"), "obMatJos2wAAArest");
        assert_eq!(SecurityFeatures::of_nonce("obMatJos2gAAA").nonce(""), "obMatJos2gAAA");
        assert_eq!(SecurityFeatures::of_nonce("obMatJos2////x"), both);
    }

    #[test]
    fn a_nonce_without_a_whole_cookie_tells_nothing() {
        for nonce in ["", "f//499k954d6OL34oL9FSTvy64sA", "obMatJos2gA", "obMatJos2g=AA", "xobMatJos2gAAA"] {
            assert_eq!(SecurityFeatures::of_nonce(nonce), SecurityFeatures::default(), "{nonce}");
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_read(password_algorithms: bool, username_anonymity: bool, rest: String) {
            let features = SecurityFeatures { password_algorithms, username_anonymity };
            prop_assert_eq!(SecurityFeatures::of_nonce(&features.nonce(&rest)), features);
        }

        #[test]
        fn no_nonce_makes_it_panic(nonce in "(obMatJos2)?.{0,8}") {
            SecurityFeatures::of_nonce(&nonce);
        }
    }
}
