//! Nonces that the server recognises without storing them (RFC 8489 §9.2).
//!
//! ```text
//! "obMatJos2" | base64(security features, 3 bytes)            RFC 8489 §9.2: the nonce cookie
//! hex(seconds since the server's start until it runs out, u32) | hex(first 16 bytes of BLAKE3-keyed(expiry, client's IP))
//! ```
//! A nonce is valid for one client host, since a client's control and data connections come from one address, and their ports
//! differ. The key is made at each start, so that a nonce does not outlive the server.
//!
//! What it is not: a guard against repeating a message within its lifetime on one host; whoever repeats it cannot sign the
//! next one, and a connection is bound once.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::long_term::SecurityFeatures;

/// What the nonce says besides: PASSWORD-ALGORITHMS comes with it.
const FEATURES: SecurityFeatures = SecurityFeatures { password_algorithms: true, username_anonymity: false };
/// How many bytes of the authentication code a nonce has.
const CODE_LEN: usize = 16;

/// Makes nonces, and recognises its own.
#[derive(Clone)]
pub(super) struct Nonces {
    key: [u8; 32],
    started: Instant,
    lifetime: Duration,
}

impl Nonces {
    pub(super) fn new(key: [u8; 32], started: Instant, lifetime: Duration) -> Self {
        Self { key, started, lifetime }
    }

    /// A nonce for a client of this host.
    pub(super) fn make(&self, now: Instant, host: IpAddr) -> String {
        let age = now.saturating_duration_since(self.started) + self.lifetime;
        let expiry = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        FEATURES.nonce(&format!("{expiry:08x}{}", self.code(expiry, host)))
    }

    /// Whether a nonce is one of ours, for this host, and has not run out.
    pub(super) fn is_good(&self, now: Instant, host: IpAddr, nonce: &str) -> bool {
        let Some((expiry, code)) = nonce.strip_prefix(&FEATURES.nonce("")).and_then(|rest| rest.split_at_checked(8))
        else {
            return false;
        };
        let Ok(expiry) = u32::from_str_radix(expiry, 16) else { return false };
        let age = now.saturating_duration_since(self.started);
        // Nobody gains by how long it takes to find out that a nonce is wrong: it is no secret, and good for nothing alone.
        code == self.code(expiry, host) && age < Duration::from_secs(u64::from(expiry))
    }

    fn code(&self, expiry: u32, host: IpAddr) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&expiry.to_be_bytes());
        match host.to_canonical() {
            IpAddr::V4(ip) => hasher.update(&ip.octets()),
            IpAddr::V6(ip) => hasher.update(&ip.octets()),
        };
        let hash = hasher.finalize().to_hex();
        hash[..2 * CODE_LEN].to_owned()
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // any instant will do as the first one
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(100);

    fn host(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_nonce_is_good_for_its_host_until_it_runs_out() {
        let start = Instant::now();
        let nonces = Nonces::new([1; 32], start, LIFETIME);
        let nonce = nonces.make(start, host("192.0.2.1"));
        assert!(nonces.is_good(start + LIFETIME / 2, host("192.0.2.1"), &nonce));
        assert!(nonces.is_good(start, host("::ffff:192.0.2.1"), &nonce), "the same host");
        assert!(!nonces.is_good(start + LIFETIME, host("192.0.2.1"), &nonce), "it has run out");
        assert!(!nonces.is_good(start, host("192.0.2.2"), &nonce), "another host");
        assert!(!Nonces::new([2; 32], start, LIFETIME).is_good(start, host("192.0.2.1"), &nonce), "another server");
    }

    #[test]
    fn its_expiry_cannot_be_moved() {
        let start = Instant::now();
        let nonces = Nonces::new([1; 32], start, LIFETIME);
        let nonce = nonces.make(start, host("192.0.2.1"));
        let later = nonce.replacen("00000064", "000000ff", 1);
        assert_ne!(later, nonce);
        assert!(!nonces.is_good(start, host("192.0.2.1"), &later));
    }

    #[test]
    fn it_says_that_password_algorithms_are_known() {
        let nonce = Nonces::new([1; 32], Instant::now(), LIFETIME).make(Instant::now(), host("::1"));
        let features = nonce.strip_prefix("obMatJos2").unwrap()[..4].to_owned();
        use base64::Engine;
        assert_eq!(base64::engine::general_purpose::STANDARD.decode(features).unwrap(), [0x80, 0, 0]);
        assert!(nonce.len() <= 128, "RFC 8489 §14.10");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in ".*", tail in "[0-9a-f]{0,60}é?") {
            let nonces = Nonces::new([1; 32], Instant::now(), LIFETIME);
            prop_assert!(!nonces.is_good(Instant::now(), host("::1"), &text));
            let made_up = FEATURES.nonce(&tail);
            prop_assert!(!nonces.is_good(Instant::now(), host("::1"), &made_up));
        }
    }
}
