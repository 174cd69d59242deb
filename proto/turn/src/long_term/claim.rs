//! Who has made a request, by its own word (RFC 8489 §9.2.4).
//!
//! A server answers a request without a claim with 401, a malformed claim with 400, one under a nonce that it does not know (any more)
//! with 438, and one of an unknown user or without proof with 401; each with a challenge, except 400.
//!
//! What it is not: proof; that is [`Key::proves`](super::Key::proves).

use stun_types::{
    attribute::{AttributeStaticType, MessageIntegrity, MessageIntegritySha256, Nonce, Realm, Userhash, Username},
    message::Message,
};

use super::{
    AlgorithmList, PasswordAlgorithm, Protection,
    algorithm::{PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, read_one},
};

/// What a request says of who has made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The user.
    pub user: ClaimedUser,
    /// The realm.
    pub realm: String,
    /// The nonce.
    pub nonce: String,
    /// How the request, and so the response to it, is proven.
    pub protection: Protection,
}

/// A user, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimedUser {
    /// By USERNAME.
    Name(String),
    /// By USERHASH: SHA-256 of user and realm (RFC 8489 §14.4).
    Hash([u8; 32]),
}

/// A claim that makes no sense. The client's fault, or that of somebody on the way; the answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedClaim {
    /// A proof without user, realm or nonce.
    #[error("the request has a proof without a valid user name, realm and nonce")]
    Incomplete,
    /// Other algorithms than the server offered (RFC 8489 §9.2.4).
    #[error("the request repeats other password algorithms than were offered")]
    BidDown,
}

impl ClaimedUser {
    /// Whether a user of this name is meant.
    pub fn is(&self, username: &str, realm: &str) -> bool {
        match self {
            Self::Name(name) => name == username,
            Self::Hash(hash) => *hash == Userhash::compute(username, realm),
        }
    }
}

impl Claim {
    /// Reads the claim of a request to a server that offers these algorithms; `None` if it has no proof.
    pub fn read(request: &Message<'_>, offered: Option<&AlgorithmList>) -> Result<Option<Self>, MalformedClaim> {
        let (sha1, sha256) =
            (request.has_attribute(MessageIntegrity::TYPE), request.has_attribute(MessageIntegritySha256::TYPE));
        if !sha1 && !sha256 {
            return Ok(None);
        }
        let user = match (request.attribute::<Username>(), request.attribute::<Userhash>()) {
            (Ok(name), _) => ClaimedUser::Name(name.username().to_owned()),
            (_, Ok(hash)) => ClaimedUser::Hash(*hash.hash()),
            _ => return Err(MalformedClaim::Incomplete),
        };
        let realm = request.attribute::<Realm>().map_err(|_| MalformedClaim::Incomplete)?;
        let nonce = request.attribute::<Nonce>().map_err(|_| MalformedClaim::Incomplete)?;
        let algorithm = algorithm(request, offered)?;
        let protection = match (algorithm, sha256) {
            (algorithm, true) => Protection::Sha256(algorithm.unwrap_or(PasswordAlgorithm::Md5)),
            (None | Some(PasswordAlgorithm::Md5), false) => Protection::Sha1,
            (Some(PasswordAlgorithm::Sha256), false) => return Err(MalformedClaim::BidDown),
        };
        Ok(Some(Self { user, realm: realm.realm().to_owned(), nonce: nonce.nonce().to_owned(), protection }))
    }
}

/// The algorithm that a request has chosen. A client that repeats the offer has seen it; a request with neither attribute comes from a
/// client older than RFC 8489.
fn algorithm(
    request: &Message<'_>,
    offered: Option<&AlgorithmList>,
) -> Result<Option<PasswordAlgorithm>, MalformedClaim> {
    let (list, chosen) = (request.raw_attribute(PASSWORD_ALGORITHMS), request.raw_attribute(PASSWORD_ALGORITHM));
    match (list, chosen, offered) {
        (None, None, _) => Ok(None),
        (Some(list), Some(chosen), Some(offered)) if *list.value == *offered.value() => read_one(&chosen.value)
            .filter(|chosen| offered.known().any(|known| known == *chosen))
            .map(Some)
            .ok_or(MalformedClaim::BidDown),
        _ => Err(MalformedClaim::BidDown),
    }
}
