//! What a node says of itself when it asks.

use super::{
    DOMAIN, MAX_CLOCK_SKEW, RelayChannel, RelayingError,
    sealing::{self, CLAIM_LEN, SEALED_LEN},
};
use keyferry_net::time::UnixTime;

use crate::identity::{NodeKey, NodeSecret};

/// The greatest length of a request, in bytes.
pub const MAX_REQUEST_LEN: usize = KIND_LEN + SEALED_LEN;

const KIND_LEN: usize = 4;
const ANONYMOUS: u32 = 0;
const NODE: u32 = 1;

/// The request of a node that does not say who it is.
pub fn anonymous_request() -> Vec<u8> {
    ANONYMOUS.to_le_bytes().to_vec()
}

/// The request of a node that says who it is, to a relay that should be the node `relay`. No other node can read it.
///
/// `seed` is fresh and random.
pub fn node_request(
    secret: &NodeSecret,
    relay: &NodeKey,
    channel: RelayChannel,
    now: UnixTime,
    seed: &[u8; 64],
) -> Vec<u8> {
    let signature = secret.sign(&signed(channel, now));
    let claim = concat(&[secret.public().as_bytes(), &now.0.to_le_bytes(), &signature]);
    [&NODE.to_le_bytes()[..], &sealing::seal(relay, seed, &claim)].concat()
}

/// Reads a request that came over `channel` to the node of `relay`, and returns the node that asks, if it says who it is.
pub fn verify_request(
    message: &[u8],
    relay: &NodeSecret,
    channel: RelayChannel,
    now: UnixTime,
) -> Result<Option<NodeKey>, RelayingError> {
    let wrong_length = RelayingError::RequestLength { got: message.len() };
    let (kind, sealed) = message.split_first_chunk::<KIND_LEN>().ok_or(wrong_length.clone())?;
    let kind = u32::from_le_bytes(*kind);
    match (kind, <&[u8; SEALED_LEN]>::try_from(sealed)) {
        (ANONYMOUS, _) if sealed.is_empty() => Ok(None),
        (NODE, Ok(sealed)) => verify_claim(&sealing::open(relay, sealed)?, relay, channel, now).map(Some),
        (_, is_node) if is_node.is_ok() || sealed.is_empty() => {
            Err(RelayingError::Kind { got: kind, len: message.len() })
        }
        _ => Err(wrong_length),
    }
}

fn verify_claim(
    claim: &[u8; CLAIM_LEN],
    relay: &NodeSecret,
    channel: RelayChannel,
    now: UnixTime,
) -> Result<NodeKey, RelayingError> {
    let [key, time, signature] = [0..32, 32..40, 40..CLAIM_LEN].map(|range| &claim[range]);
    let node = NodeKey::from_bytes(&chunk(key)).map_err(|_| RelayingError::RequesterKey)?;
    if node == relay.public() {
        return Err(RelayingError::RequesterKey);
    }
    let made = UnixTime(u64::from_le_bytes(chunk(time)));
    if made.since(now).max(now.since(made)) > MAX_CLOCK_SKEW {
        return Err(RelayingError::Time { got: made, now });
    }
    match node.verifies(&signed(channel, made), &chunk(signature)) {
        true => Ok(node),
        false => Err(RelayingError::BadSignature),
    }
}

fn signed(channel: RelayChannel, now: UnixTime) -> Vec<u8> {
    [DOMAIN, &channel.relay, &channel.requester, &now.0.to_le_bytes()].concat()
}

/// Joins parts that have `LEN` bytes in all.
fn concat<const LEN: usize>(parts: &[&[u8]]) -> [u8; LEN] {
    chunk(&parts.concat())
}

fn chunk<const LEN: usize>(bytes: &[u8]) -> [u8; LEN] {
    bytes.try_into().expect("the lengths are constants")
}
