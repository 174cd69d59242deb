//! Whether a dialler knows whom, or what, it seeks here.
//!
//! Strangers fill nothing here: what is remembered of proofs is remembered of right ones only.
//!
//! What it is not: whether it may have that (`crate::content::transfer::serve`).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use keyferry_net::time::{UnixTime, UtcDay};
use keyferry_proto::{
    dialling::{ContentTag, DialNonce, FirstFlight, Sought},
    hash::ContentHash,
    identity::NodeKey,
};

use super::dial_days::{DialDays, days_about};

/// How many proofs are remembered, so that none counts twice. Each takes about 50 bytes.
const MAX_REMEMBERED: usize = 65_536;

/// How many dials of this node to its own key are remembered: more than are under way at a time.
const MAX_OWN_DIALS: usize = 256;

/// What a dialler has proven to seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProvenSought {
    pub(super) sought: Sought,
    /// The day by which it has.
    pub(super) day: UtcDay,
}

/// Checks proofs for one node.
#[derive(Debug)]
pub(super) struct ProofVerifier {
    node: NodeKey,
    days: Arc<DialDays>,
    contents: RwLock<HashMap<ContentTag, (ContentHash, UtcDay)>>,
    seen: Mutex<SeenNonces>,
}

impl ProofVerifier {
    pub(super) fn new(node: NodeKey, days: Arc<DialDays>) -> Self {
        Self { node, days, contents: RwLock::default(), seen: Mutex::default() }
    }

    /// Sets what may be sought here by its hash alone, on the day that it is and on those beside it.
    pub(super) fn set_contents(&self, contents: impl IntoIterator<Item = ContentHash>, today: UtcDay) {
        let tags = contents
            .into_iter()
            .flat_map(|hash| days_about(today).into_iter().map(move |day| (ContentTag::of(&hash, day), (hash, day))));
        let tags = tags.collect();
        *self.contents.write().unwrap_or_else(PoisonError::into_inner) = tags;
    }

    /// What a dialler has proven to know, if this is here and the proof is new.
    pub(super) fn verify(&self, shown: &FirstFlight, now: UnixTime) -> Option<ProvenSought> {
        let node = Sought::Node(self.node);
        let mut proven = self.content(shown);
        // All of them, so that it takes as long whatever the answer is.
        for day in self.days.to_take(now) {
            if shown.proof.proves(&node, day, &shown.share) {
                proven = Some(ProvenSought { sought: node, day });
            }
        }
        let proven = proven?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).enter(shown.proof.nonce()).then_some(proven)
    }

    fn content(&self, shown: &FirstFlight) -> Option<ProvenSought> {
        let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
        let (hash, day) = contents.get(&shown.proof.tag())?;
        let sought = Sought::Content(*hash);
        shown.proof.proves(&sought, *day, &shown.share).then_some(ProvenSought { sought, day: *day })
    }
}

/// The proofs by which this node itself has sought its own key, as another node may have it. They may lead back here: who meets one has met
/// nobody else.
#[derive(Debug, Default)]
pub(super) struct OwnDials(Mutex<VecDeque<DialNonce>>);

impl OwnDials {
    /// Remembers one that is about to be sent.
    pub(super) fn note(&self, nonce: DialNonce) {
        let mut nonces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.push_back(nonce);
        if nonces.len() > MAX_OWN_DIALS {
            nonces.pop_front();
        }
    }

    /// Whether a proof that has come in is one of them.
    pub(super) fn has(&self, nonce: DialNonce) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&nonce)
    }
}

/// The proofs that were used already; of too many, the oldest are forgotten.
#[derive(Debug, Default)]
struct SeenNonces {
    known: HashSet<DialNonce>,
    in_order: VecDeque<DialNonce>,
}

impl SeenNonces {
    /// False if it is known already.
    fn enter(&mut self, nonce: DialNonce) -> bool {
        if !self.known.insert(nonce) {
            return false;
        }
        self.in_order.push_back(nonce);
        if self.in_order.len() > MAX_REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use keyferry_proto::{
        dialling::{DialProof, KeyShare},
        identity::NodeSecret,
    };

    use super::*;

    const NOON: UnixTime = UnixTime(20_000 * 86_400 + 43_200);
    const DAY_S: u64 = 86_400;

    fn key(seed: u8) -> NodeKey {
        NodeSecret::from_bytes(&[seed; 32]).public()
    }

    fn shown(sought: &Sought, at: UnixTime, random: u8) -> FirstFlight {
        let share = KeyShare([random; 32]);
        FirstFlight { proof: DialProof::new(sought, at.day(), &share, [random; 16]), share }
    }

    #[test]
    fn a_dialler_whose_clock_is_up_to_a_day_off_is_let_in() {
        let (verifier, film) = (ProofVerifier::new(key(1), Arc::default()), ContentHash::of(b"film"));
        verifier.set_contents([film], NOON.day());
        for (random, at_s) in [(1, NOON.0 - DAY_S), (2, NOON.0), (3, NOON.0 + DAY_S)] {
            for (random, sought) in [(random, Sought::Node(key(1))), (random + 10, Sought::Content(film))] {
                let proven = ProvenSought { sought, day: UnixTime(at_s).day() };
                assert_eq!(verifier.verify(&shown(&sought, UnixTime(at_s), random), NOON), Some(proven));
            }
        }
        for at_s in [NOON.0 - 2 * DAY_S, NOON.0 + 2 * DAY_S] {
            assert_eq!(verifier.verify(&shown(&Sought::Node(key(1)), UnixTime(at_s), 4), NOON), None);
        }
    }

    #[test]
    fn whoever_seeks_another_node_or_what_is_not_here_is_not() {
        let (verifier, film, song) =
            (ProofVerifier::new(key(1), Arc::default()), ContentHash::of(b"film"), ContentHash::of(b"song"));
        verifier.set_contents([film], NOON.day());
        for sought in [Sought::Node(key(2)), Sought::Content(song)] {
            assert_eq!(verifier.verify(&shown(&sought, NOON, 1), NOON), None);
        }
        verifier.set_contents([song], NOON.day());
        assert_eq!(verifier.verify(&shown(&Sought::Content(film), NOON, 1), NOON), None, "it is not here any more");
    }

    #[test]
    fn no_proof_counts_twice_or_with_another_key_share() {
        let verifier = ProofVerifier::new(key(1), Arc::default());
        let first = shown(&Sought::Node(key(1)), NOON, 1);
        assert_eq!(verifier.verify(&FirstFlight { share: KeyShare([9; 32]), ..first }, NOON), None);
        assert!(verifier.verify(&first, NOON).is_some());
        assert_eq!(verifier.verify(&first, NOON), None);
    }

    #[test]
    fn proofs_that_are_remembered_are_bounded() {
        let mut seen = SeenNonces::default();
        let proof = |number: u32| {
            let mut random = [0; 16];
            random[..4].copy_from_slice(&number.to_le_bytes());
            DialProof::new(&Sought::Node(key(1)), NOON.day(), &KeyShare([0; 32]), random).nonce()
        };
        let most = MAX_REMEMBERED as u32;
        assert!((0..=most).all(|number| seen.enter(proof(number))));
        assert_eq!((seen.known.len(), seen.in_order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(!seen.enter(proof(most)) && seen.enter(proof(0)));
    }
}
