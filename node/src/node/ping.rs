//! Carrying out `ping`: reaches a node, tells each step, and measures round trips.
//!
//! What it is not: the steps themselves (`crate::connect`).

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{Event, NodeAddress, PathInfo, PingReply, Pinged},
    events::{Events, steps_to, tell},
};
use crate::{connect::trace::Trace, net::session::Session, node::network::Online};

/// Round trips that one `ping` may measure.
pub const MAX_PINGS: u32 = 10_000;
/// From one measurement to the next.
const PING_PAUSE: Duration = Duration::from_millis(200);
/// How long a relayed session waits for a direct one, or the reason why there is none: as long as a negotiation lasts.
const DIRECT_PATIENCE: Duration = Duration::from_secs(12);
/// How long a round trip may take.
const PING_PATIENCE: Duration = Duration::from_secs(5);

impl Node {
    pub(super) async fn ping(
        &self,
        of: &NodeAddress,
        count: u32,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let NodeAddress { node, ref hints } = *of;
        if node == self.key() {
            return Err(self.own_key_sought(hints).await);
        }
        let pinged = async {
            let began = Instant::now();
            tell(events, Event::Stage { message: format!("looking for {}", node.short()) }).await;
            let online = self.online()?;
            let session = online.finder.connect(node, hints, &Trace::Stages(steps_to(events))).await?;
            let total = began.elapsed();
            let session = settle(online, session, events).await;
            let round_trip = measure(&session, count.min(MAX_PINGS), events).await?;
            let path = PathInfo::new(session.peer_name().node(), &session.path());
            tell(events, Event::Pinged(Pinged { node: node.to_string(), path, total, round_trip })).await;
            Ok(())
        };
        tokio::select! {
            pinged = pinged => pinged,
            () = cancel.cancelled() => Err(Error::Interrupted),
        }
    }
}

/// Waits until it is known whether a relayed session stays relayed: a direct one may follow, or the reason why there is none.
async fn settle(online: &Online, session: Session, events: &Events) -> Session {
    let mut path = session.watch_path();
    if path.borrow().kind.is_settled() {
        return session;
    }
    tell(events, Event::Stage { message: "reached by a relay; looking for a direct path".to_owned() }).await;
    let explained = async {
        // It does not fail: the session is held here.
        let _ = path.wait_for(|path| path.kind.is_settled()).await;
    };
    tokio::select! {
        direct = online.sessions.direct(session.peer()) => direct,
        () = explained => session.clone(),
        () = sleep(DIRECT_PATIENCE) => session.clone(),
    }
}

/// Measures round trips; the shortest one, if there was any.
async fn measure(session: &Session, count: u32, events: &Events) -> Result<Option<Duration>, Error> {
    let mut shortest: Option<Duration> = None;
    for number in 1..=count {
        let answered = timeout(PING_PATIENCE, session.ping()).await;
        let took = answered.map_err(|_| Error::PathSilent { within: PING_PATIENCE })??;
        tell(events, Event::PingReply(PingReply { number, took })).await;
        shortest = Some(shortest.map_or(took, |before| before.min(took)));
        if number < count {
            sleep(PING_PAUSE).await;
        }
    }
    Ok(shortest)
}
