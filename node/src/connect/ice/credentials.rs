//! New credentials for a negotiation (RFC 8445 §5.3).
//!
//! What it is not: the rules for those of others; see `keyferry_proto::offer`.

use keyferry_ice::Credentials;

/// 48 random bits where 24 are asked for: the fragment also tells negotiations of one node apart.
const UFRAG_CHARS: usize = 8;
/// 144 random bits where 128 are asked for.
const PASSWORD_CHARS: usize = 24;

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Makes credentials that nobody can guess.
pub(super) fn new() -> Credentials {
    Credentials { ufrag: text::<UFRAG_CHARS>(), password: text::<PASSWORD_CHARS>() }
}

fn text<const CHARS: usize>() -> String {
    let random: [u8; CHARS] = rand::random();
    random.iter().map(|byte| char::from(ICE_CHARS[usize::from(byte % 64)])).collect()
}

#[cfg(test)]
mod tests {
    use keyferry_ice::{PASSWORD_LEN, UFRAG_LEN};

    use super::*;

    #[test]
    fn credentials_are_of_the_allowed_form_and_differ() {
        let (one, other) = (new(), new());
        for credentials in [&one, &other] {
            assert!(UFRAG_LEN.contains(&credentials.ufrag.len()) && PASSWORD_LEN.contains(&credentials.password.len()));
        }
        assert_ne!(one.ufrag, other.ufrag);
        assert_ne!(one.password, other.password);
    }
}
