//! Saying soon that there is nobody on the network at all, rather than at the end of a search in vain.
//!
//! What it is not: the end of a command. Somebody may come.

use std::{future::pending, time::Duration};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{Command, Event},
    events::{Events, tell},
    network::Online,
};

/// How long it may take until somebody answers. Two round trips with the far side of the world are a second.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_millis(2_500);

const NOBODY_ANSWERS: &str = "nobody answers on the network so far, neither a node of the DHT nor one nearby: see whether this machine is online; \
     name a node that is up with --bootstrap, or use the longer address with ?via= that `keyferry share` prints";

impl Command {
    fn needs_others(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Read { .. } | Self::List { .. } | Self::Ping { .. })
    }
}

impl Node {
    /// Carries out a command. If it needs others, and nobody at all is there, that is said meanwhile.
    pub(super) async fn carry_out_among_others(
        &self,
        command: Command,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let needs_others = command.needs_others();
        let telling = async {
            sleep(FIRST_ANSWER_WITHIN).await;
            if needs_others && self.is_alone() {
                tell(events, Event::Notice { message: NOBODY_ANSWERS.to_owned() }).await;
            }
            pending().await
        };
        tokio::select! {
            biased;
            done = self.carry_out(command, events, cancel) => done,
            never = telling => never,
        }
    }

    fn is_alone(&self) -> bool {
        let nobody =
            |online: &Online| online.sessions.count() == 0 && online.rendezvous.status().borrow().connected == 0;
        self.online.as_ref().is_some_and(nobody)
    }
}
