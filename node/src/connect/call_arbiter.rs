//! Whose turn it is when two nodes call each other: two negotiations between the same two ports would take each other's
//! addresses, so one call at a time is made or answered with each node.
//!
//! When two calls cross, the one of the node with the greater key goes on: that node lets the other call wait, and the
//! other side gives up its own.
//!
//! What it is not: a limit on calls; see `crate::connect::callee`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use keyferry_proto::identity::NodeKey;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The calls under way, by node. Clones are handles to the same list.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    own: NodeKey,
    under_way: Arc<watch::Sender<HashMap<NodeKey, UnderWay>>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    outgoing: Option<Outgoing>,
    incoming: Option<(u64, CancellationToken)>,
    last: u64,
}

#[derive(Debug)]
struct Outgoing {
    superseded: CancellationToken,
    /// The signalling's round trip, once the call was answered.
    answered: Option<Duration>,
}

impl UnderWay {
    fn is_over(&self) -> bool {
        self.outgoing.is_none() && self.incoming.is_none()
    }
}

/// The turn to call a node; given back when dropped.
#[derive(Debug)]
pub(crate) struct CallTurn {
    turns: Turns,
    node: NodeKey,
    /// Cancelled when the node's own call is to go on instead.
    pub(crate) superseded: CancellationToken,
}

/// The turn to answer a node; given back when dropped.
#[derive(Debug)]
pub(crate) struct AnswerTurn {
    turns: Turns,
    node: NodeKey,
    number: u64,
    /// Cancelled when the node calls again: it has given up this call.
    pub(crate) superseded: CancellationToken,
}

impl Turns {
    pub(crate) fn new(own: NodeKey) -> Self {
        Self { own, under_way: Arc::default() }
    }

    /// Waits for the turn to call a node.
    pub(crate) async fn to_call(&self, node: NodeKey) -> CallTurn {
        let superseded = CancellationToken::new();
        loop {
            let taken = self.under_way.send_if_modified(|all| {
                let one = all.entry(node).or_default();
                let free = one.is_over();
                if free {
                    one.outgoing = Some(Outgoing { superseded: superseded.clone(), answered: None });
                }
                free
            });
            if taken {
                return CallTurn { turns: self.clone(), node, superseded };
            }
            self.wait_until(&node, UnderWay::is_over).await;
        }
    }

    /// Waits for the turn to answer a node that calls. An earlier call of the node ends.
    pub(crate) async fn to_answer(&self, node: NodeKey) -> AnswerTurn {
        let superseded = CancellationToken::new();
        let mut number = 0;
        self.change(&node, |one| {
            one.last += 1;
            number = one.last;
            if let Some((_, earlier)) = one.incoming.replace((number, superseded.clone())) {
                earlier.cancel();
            }
            if let Some(outgoing) = &one.outgoing
                && self.own.as_bytes() < node.as_bytes()
            {
                outgoing.superseded.cancel();
            }
        });
        let turn = AnswerTurn { turns: self.clone(), node, number, superseded };
        self.wait_until(&node, |one| one.outgoing.is_none()).await;
        turn
    }

    /// The signalling's round trip with a node that has answered this one's call, as long as a path to it is looked for.
    pub(crate) fn negotiates_with(&self, node: &NodeKey) -> Option<Duration> {
        self.under_way.borrow().get(node)?.outgoing.as_ref()?.answered
    }

    async fn wait_until(&self, node: &NodeKey, is: impl Fn(&UnderWay) -> bool) {
        // The sender is in `self`, so this does not fail.
        let _ = self.under_way.subscribe().wait_for(|all| all.get(node).is_none_or(&is)).await;
    }

    fn change(&self, node: &NodeKey, change: impl FnOnce(&mut UnderWay)) {
        self.under_way.send_modify(|all| {
            let one = all.entry(*node).or_default();
            change(one);
            if one.is_over() {
                all.remove(node);
            }
        });
    }
}

impl CallTurn {
    /// Tells that the node has answered the call, and how long a signal takes to it and back.
    pub(crate) fn answered(&self, round_trip: Duration) {
        self.turns.change(&self.node, |one| {
            if let Some(outgoing) = &mut one.outgoing {
                outgoing.answered = Some(round_trip);
            }
        });
    }
}

impl Drop for CallTurn {
    fn drop(&mut self) {
        self.turns.change(&self.node, |one| one.outgoing = None);
    }
}

impl Drop for AnswerTurn {
    fn drop(&mut self) {
        let number = self.number;
        self.turns.change(&self.node, |one| {
            if one.incoming.as_ref().is_some_and(|(current, _)| *current == number) {
                one.incoming = None;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use futures::poll;
    use keyferry_proto::identity::NodeSecret;

    use super::*;

    /// Two keys, the lesser one first.
    fn keys() -> (NodeKey, NodeKey) {
        let [a, b] = [1, 2].map(|byte| NodeSecret::from_bytes(&[byte; 32]).public());
        if a.as_bytes() < b.as_bytes() { (a, b) } else { (b, a) }
    }

    async fn is_ready<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        matches!(poll!(future), Poll::Ready(_))
    }

    #[tokio::test]
    async fn one_call_at_a_time_is_made_to_a_node() {
        let (own, peer) = keys();
        let turns = Turns::new(own);
        let first = turns.to_call(peer).await;
        let mut second = pin!(turns.to_call(peer));

        assert!(!is_ready(second.as_mut()).await);
        assert!(is_ready(pin!(turns.to_call(own))).await, "another node can be called");
        drop(first);
        assert!(is_ready(second).await);
    }

    #[tokio::test]
    async fn a_call_that_was_answered_is_known_until_its_turn_is_over() {
        let (own, peer) = keys();
        let turns = Turns::new(own);
        let turn = turns.to_call(peer).await;
        assert_eq!(turns.negotiates_with(&peer), None);

        turn.answered(Duration::from_millis(600));
        assert_eq!(turns.negotiates_with(&peer), Some(Duration::from_millis(600)));
        drop(turn);
        assert_eq!(turns.negotiates_with(&peer), None);
    }

    #[tokio::test]
    async fn of_two_calls_that_cross_that_of_the_greater_key_goes_on() {
        let (lesser, greater) = keys();
        let (at_lesser, at_greater) = (Turns::new(lesser), Turns::new(greater));
        let (given_up, going_on) = (at_lesser.to_call(greater).await, at_greater.to_call(lesser).await);
        let mut answers = pin!(at_lesser.to_answer(greater));
        let mut waits = pin!(at_greater.to_answer(lesser));

        assert!(!is_ready(answers.as_mut()).await && !is_ready(waits.as_mut()).await);
        assert!(given_up.superseded.is_cancelled() && !going_on.superseded.is_cancelled());
        drop(given_up);
        assert!(is_ready(answers).await);
        assert!(!is_ready(waits).await);
    }

    #[tokio::test]
    async fn a_node_that_calls_again_has_given_up_its_earlier_call() {
        let (own, peer) = keys();
        let turns = Turns::new(own);
        let earlier = turns.to_answer(peer).await;
        let later = turns.to_answer(peer).await;
        assert!(earlier.superseded.is_cancelled());
        drop(earlier);
        let mut own_call = pin!(turns.to_call(peer));

        assert!(!is_ready(own_call.as_mut()).await && !later.superseded.is_cancelled());
        drop(later);
        assert!(is_ready(own_call).await);
        assert!(turns.under_way.borrow().is_empty());
    }
}
