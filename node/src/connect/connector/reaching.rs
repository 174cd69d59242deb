//! Trying to reach a node for as long as somebody wants it.
//!
//! What it is not: one try ([`Finder::try_once`]), or the decision about when it has been long enough (`node::waiting`).

use std::time::{Duration, Instant};

use keyferry_proto::identity::NodeKey;
use libp2p::Multiaddr;
use tokio::time::sleep;

use super::{
    super::trace::Trace,
    Finder,
    error::{FindError, Tried},
    offers::{FoundOffer, ways_to},
    search::{MissedTry, SearchBoard, SearchPauses, SearchTries, SearchVerdicts},
};
use crate::net::session::Session;

/// How often a newer offer is looked for while a try takes long: its addresses may be those of before.
const LOOK_FOR_OFFER_EVERY: Duration = Duration::from_secs(3);

impl Finder {
    /// Tries again and again until there is a session with a node, and tells how that stands. Dropping the future gives it up.
    /// The steps of the first try are told, those of later ones are not.
    pub(crate) async fn reach(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        trace: &Trace,
        board: &SearchBoard,
        tries: &mut SearchTries,
    ) -> Session {
        let mut pauses = SearchPauses::new(Instant::now());
        let mut verdicts = SearchVerdicts::default();
        let mut trace = trace;
        loop {
            tries.present = Tried::default();
            let tried = tokio::select! {
                tried = self.try_once(node, hints, trace, board, &mut tries.present) => tried,
                () = self.newer_offer(node, board) => {
                    tracing::debug!("a newer offer is tried at once");
                    continue;
                }
            };
            let error = match tried {
                Ok(Some(session)) => {
                    board.found();
                    return session;
                }
                Ok(None) => std::mem::take(&mut tries.present).into_error(node).unwrap_or_else(|| self.no_offer(node)),
                Err(error) => error,
            };
            tracing::debug!(%error, "the node is not reached yet");
            let now = Instant::now();
            let pause = pauses.next(now);
            board.missed(MissedTry {
                why: error.to_string(),
                is_final: verdicts.is_final(&error),
                is_of_another: error.is_of_another_node(),
                next: now + pause,
            });
            tries.last = Some(error);
            sleep(pause).await;
            trace = &Trace::Silent;
        }
    }

    /// Why all these tries to reach a node were in vain.
    pub(crate) fn why_not_reached(&self, node: NodeKey, tries: SearchTries) -> FindError {
        let SearchTries { present, last } = tries;
        let (has_offer, said) = (present.had_offer, present.off_time);
        let unanswered = || match has_offer {
            true => FindError::Unanswered { node }.beside(said),
            false => self.no_offer(node),
        };
        present.into_error(node).or(last).unwrap_or_else(unanswered)
    }

    /// Returns when the DHT has a newer offer of a node than the newest that was opened: it has moved, or was started again. Whoever has
    /// answered a call is there, whatever it has published since: that try goes on.
    async fn newer_offer(&self, node: NodeKey, board: &SearchBoard) {
        loop {
            sleep(LOOK_FOR_OFFER_EVERY).await;
            if self.negotiates_with(&node).is_some() {
                continue;
            }
            let before = board.newest_offer();
            let mut offers = ways_to(&self.rendezvous, node, self.relay_mode);
            while let Some(offer) = offers.recv().await {
                if let FoundOffer::Ways(ways) = offer
                    && Some(ways.sequence) > before
                    && self.negotiates_with(&node).is_none()
                {
                    return;
                }
            }
        }
    }
}
