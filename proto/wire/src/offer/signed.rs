//! A signed offer: in hand means verified.
//!
//! What it is not: private. It names its node; for the DHT it is sealed first.

use multiaddr::Multiaddr;
use serde::{Deserialize, Serialize};

use super::{MAX_CANDIDATES, MAX_SIGNALLING, Offer, OfferError};
use keyferry_ice::Candidate;
use keyferry_net::time::UnixTime;

use crate::{
    codec,
    identity::{NodeKey, NodeSecret},
};

/// The greatest length of a signed offer, in bytes.
pub const MAX_SIGNED_LEN: usize = 2300;

/// The version of the offers that this program makes and reads.
pub const OFFER_VERSION: u8 = 2;

const DOMAIN: &[u8] = b"keyferry offer v2\0";
const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// An offer with the node that made it. The signature has been verified and the limits have been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOffer {
    node: NodeKey,
    offer: Offer,
    bytes: Vec<u8>,
}

/// The offer as it is encoded. It has no invariants, which is why it stays in here.
#[derive(Serialize, Deserialize)]
struct WireOffer {
    #[serde(deserialize_with = "codec::at_most::<MAX_CANDIDATES, _, _>")]
    candidates: Vec<Candidate>,
    #[serde(deserialize_with = "codec::at_most::<MAX_SIGNALLING, _, _>")]
    signalling: Vec<Vec<u8>>,
    sequence: u64,
    expires: UnixTime,
}

impl SignedOffer {
    /// Signs an offer; refuses one that is beyond the limits. The reader checks whether it has expired.
    pub fn sign(offer: Offer, secret: &NodeSecret) -> Result<Self, OfferError> {
        offer.check_form()?;
        let body = encode(&offer);
        let node = secret.public();
        let signature = secret.sign(&[DOMAIN, &body].concat());
        let bytes = [&[OFFER_VERSION], &node.as_bytes()[..], &body, &signature].concat();
        if bytes.len() > MAX_SIGNED_LEN {
            return Err(OfferError::TooLong { got: bytes.len(), limit: MAX_SIGNED_LEN });
        }
        Ok(Self { node, offer, bytes })
    }

    /// Decodes and verifies a signed offer as it stands at `now`. The caller compares [`Self::node`] with whom it expects.
    pub fn decode(bytes: &[u8], now: UnixTime) -> Result<Self, OfferError> {
        if bytes.len() > MAX_SIGNED_LEN {
            return Err(OfferError::TooLong { got: bytes.len(), limit: MAX_SIGNED_LEN });
        }
        let too_short = OfferError::TooShort { got: bytes.len() };
        let (&version, rest) = bytes.split_first().ok_or(too_short.clone())?;
        if version != OFFER_VERSION {
            return Err(OfferError::Version { got: version });
        }
        let (key, rest) = rest.split_first_chunk::<KEY_LEN>().ok_or(too_short.clone())?;
        let (body, signature) = rest.split_last_chunk::<SIGNATURE_LEN>().ok_or(too_short)?;
        let node = NodeKey::from_bytes(key)?;
        if !node.verifies(&[DOMAIN, body].concat(), signature) {
            return Err(OfferError::BadSignature);
        }
        let offer = decode(body)?;
        offer.check_form()?;
        offer.check_time(now)?;
        Ok(Self { node, offer, bytes: bytes.to_vec() })
    }

    /// The node that made the offer.
    pub fn node(&self) -> NodeKey {
        self.node
    }

    /// The offer itself.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// The encoded form, for [`Self::decode`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn encode(offer: &Offer) -> Vec<u8> {
    codec::encode(&WireOffer {
        candidates: offer.candidates.clone(),
        signalling: offer.signalling.iter().map(Multiaddr::to_vec).collect(),
        sequence: offer.sequence,
        expires: offer.expires,
    })
}

fn decode(body: &[u8]) -> Result<Offer, OfferError> {
    let wire: WireOffer = codec::decode(body, MAX_SIGNED_LEN)?;
    let signalling = (0..)
        .zip(wire.signalling)
        .map(|(index, bytes)| Multiaddr::try_from(bytes).map_err(|_| OfferError::SignallingAddr { index }))
        .collect::<Result<_, _>>()?;
    Ok(Offer { candidates: wire.candidates, signalling, sequence: wire.sequence, expires: wire.expires })
}

/// Any bytes behind a good signature: what a hostile owner can send.
#[cfg(test)]
pub(super) fn sign_any(body: &[u8], secret: &NodeSecret) -> Vec<u8> {
    let signature = secret.sign(&[DOMAIN, body].concat());
    [&[OFFER_VERSION], &secret.public().as_bytes()[..], body, &signature].concat()
}
