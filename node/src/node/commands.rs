//! Carrying out commands that concern the store and the catalogue of this node; `remote` has those that need a peer.
//!
//! What it is not: a user interface, or the work itself; it joins the parts and tells events.

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use futures::future::BoxFuture;
use keyferry_proto::{address::ShareName, hash::ContentHash};
use libp2p::Multiaddr;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{Command, Event, Failure, RelayInfo, Status, TrafficInfo},
    events::{EventPace, Events, tell},
    runner::Runner,
    sharing::{NewShare, root_info},
};
use crate::{
    base::traffic::ByteCount,
    content::store::{Damage, ImportMode, ImportOptions, Root, Store, UNFINISHED_GRACE, VerifyProgress},
    net::path::host_candidates,
    node::network::Online,
    reach::{rendezvous::multiaddr_of, turn_server::Relay},
};

/// Hints in a printed address; more would make it hard to pass on.
const MAX_PRINTED_HINTS: usize = 3;

impl Runner for Node {
    fn run(&self, command: Command, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let notices = std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner));
            for message in notices {
                tell(&events, Event::Notice { message }).await;
            }
            // Who asks for the state is told in it.
            let tells = !matches!(command, Command::Status);
            let ended = tokio::select! {
                ended = self.carry_out_among_others(command, &events, &cancel) => ended.map_err(Failure::from),
                never = self.tell_of_twins(&events), if tells => match never {},
            };
            if let Err(failure) = &ended {
                tell(&events, Event::Failed(failure.clone())).await;
            }
            ended
        })
    }
}

impl Node {
    pub(super) async fn carry_out(
        &self,
        command: Command,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        match command {
            Command::Share { paths, name, copy, taken, watch, strict, exclude, audience } => {
                let mode = match (taken, copy, watch) {
                    (true, ..) => ImportMode::Taken,
                    (false, true, _) => ImportMode::Copy,
                    (false, false, true) => ImportMode::Followed,
                    (false, false, false) => ImportMode::InPlace,
                };
                let options = ImportOptions { mode, excludes: exclude, is_strict: strict };
                self.share_all(paths, NewShare { name, audience, options }, events, cancel).await
            }
            Command::Unshare { name } => {
                self.unshare(&name).await?;
                tell(events, Event::Unshared { name }).await;
                Ok(())
            }
            Command::Withdraw { hash } => {
                self.withdraw(&hash).await?;
                tell(events, Event::Withdrawn { hash }).await;
                Ok(())
            }
            Command::Get { address, place, dry_run, wait } => {
                let told = match dry_run {
                    true => Event::Compared(self.compare_with(&address, place, wait, events, cancel).await?),
                    false => Event::Fetched(self.fetch_to(&address, place, wait, events, cancel).await?),
                };
                tell(events, told).await;
                Ok(())
            }
            Command::Read { address, outlet, wait } => self.stream_to(&address, &outlet, wait, events, cancel).await,
            Command::List { node } => {
                let count = self.list_to(&node, events, cancel).await?;
                tell(events, Event::Listed { count }).await;
                Ok(())
            }
            Command::ListFolder { address, wait } => {
                let count = self.list_folder_to(&address, wait, events, cancel).await?;
                tell(events, Event::Listed { count }).await;
                Ok(())
            }
            Command::Ping { node, count } => self.ping(&node, count, events, cancel).await,
            Command::Doctor => self.doctor(events, cancel).await,
            Command::Status => {
                tell(events, Event::Status(Box::new(self.status()))).await;
                Ok(())
            }
            Command::Shares => self.shares(events).await,
            Command::StoreList => self.store_list(events).await,
            Command::StoreRemove { what } => self.store_remove(what, events).await,
            Command::StoreVerify => self.store_verify(events, cancel).await,
            Command::StoreGc => self.store_gc(events).await,
        }
    }

    async fn store_list(&self, events: &Events) -> Result<(), Error> {
        let roots = self.store.roots();
        let count = roots.len() as u64;
        for root in roots {
            tell(events, Event::Root(root_info(root))).await;
        }
        tell(events, Event::Roots { count }).await;
        Ok(())
    }

    async fn store_remove(&self, what: String, events: &Events) -> Result<(), Error> {
        let named = || what.parse::<ShareName>().ok().and_then(|name| self.store.root_named(&name));
        let root = match what.parse::<ContentHash>() {
            Ok(hash) => self.store.root(&hash),
            Err(_) => named(),
        };
        let Some(Root { hash, .. }) = root else {
            return Err(Error::NotStored { what });
        };
        self.quick(move |store| store.remove_root(&hash)).await?;
        self.tell_of_changed_roots();
        tell(events, Event::Removed { hash }).await;
        Ok(())
    }

    async fn store_verify(&self, events: &Events, cancel: &CancellationToken) -> Result<(), Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (to, pace) = (events.clone(), EventPace::default());
        let verified = self.blocking(cancel, &cancelled, {
            let cancelled = Arc::clone(&cancelled);
            move |store| {
                let progress = |VerifyProgress { done_bytes, total_bytes }| {
                    if pace.is_due() {
                        let _ = to.try_send(Event::Verifying { done_bytes, total_bytes });
                    }
                };
                let mut damaged = |Damage { hash, path, problem }| {
                    let _ = to.blocking_send(Event::Damaged { hash, path, problem });
                };
                store.verify(&progress, &mut damaged, &cancelled)
            }
        });
        let verified = verified.await?;
        tell(events, Event::Verified { sound: verified.sound, damaged: verified.damaged }).await;
        Ok(())
    }

    async fn store_gc(&self, events: &Events) -> Result<(), Error> {
        let collected = self.quick(|store| store.gc(UNFINISHED_GRACE)).await?;
        tell(events, Event::Collected { files: collected.files, bytes: collected.bytes }).await;
        Ok(())
    }

    /// The state of the node.
    pub fn status(&self) -> Status {
        let roots = self.store.roots();
        let own = Status {
            node: self.key().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            home: self.home.root().to_owned(),
            running: self.announces,
            listen: self.local_addrs(),
            hints: self.hints().iter().map(Multiaddr::to_string).collect(),
            calls: self.calls.to_string(),
            same_key: self.twin(),
            shared: roots.iter().filter(|root| root.name().is_some()).count() as u64,
            sent_bytes: self.server.sent_bytes(),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            counters: self.server.counters().by_name().collect(),
            ..Status::default()
        };
        match &self.online {
            Some(online) => with_network(own, online),
            None => own,
        }
    }

    /// Multiaddrs at which this node listens, for `?via=` and `--bootstrap`; none of a node that hides its addresses.
    pub(crate) fn hints(&self) -> Vec<Multiaddr> {
        let Some(online) = self.online.as_ref().filter(|online| online.relay_mode.allows_direct()) else {
            return Vec::new();
        };
        host_candidates(online.port.local_addrs())
            .unwrap_or_default()
            .iter()
            .take(MAX_PRINTED_HINTS)
            .map(|candidate| multiaddr_of(candidate.addr))
            .collect()
    }

    /// Runs short blocking work on the store.
    pub(crate) async fn quick<T, E, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
        F: FnOnce(&Store) -> Result<T, E> + Send + 'static,
    {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done?.map_err(Into::into)
    }

    /// Runs long blocking work on the store; `cancelled` is set when the user stops it.
    pub(super) async fn blocking<T, E, F>(
        &self,
        cancel: &CancellationToken,
        cancelled: &Arc<AtomicBool>,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        E: Into<Error> + Send + 'static,
        F: FnOnce(&Store) -> Result<T, E> + Send + 'static,
    {
        let work = self.quick(work);
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = cancel.cancelled() => cancelled.store(true, Ordering::Relaxed),
        }
        work.await
    }
}

/// Adds what only a node on the network has.
fn with_network(mut own: Status, online: &Online) -> Status {
    let network = online.rendezvous.status().borrow().clone();
    let gathered = online.gathered.borrow().clone();
    own.counters.extend(online.ice.counters().by_name());
    own.counters.extend(online.stun.counters().by_name());
    own.counters.extend(online.relay.iter().flat_map(|relay| relay.counts_by_name()));
    own.counters.extend(network.counters);
    own.counters.extend(online.port.counters().by_name());
    own.counters.extend(online.tls.counters().by_name());
    Status {
        wan_peers: network.wan_peers as u64,
        lan_peers: network.lan_peers as u64,
        public: network.public,
        candidates: gathered.candidates.iter().map(|local| (&local.candidate).into()).collect(),
        mapping: gathered.mapping.into(),
        circuits: network.circuits.iter().map(Multiaddr::to_string).collect(),
        clock: network.clock,
        sessions: online.sessions.count(),
        paths: online.sessions.paths(),
        turn: online.turn_relays().map(|relays| relays.reports().into_iter().map(Into::into).collect()),
        relay: online.relay.as_deref().map(relay_info),
        traffic: online.port.traffic().by_name().map(traffic_info).collect(),
        ..own
    }
}

/// What its owner has to know of a node that shared and served everything before.
fn traffic_info((name, bytes): (&'static str, ByteCount)) -> (String, TrafficInfo) {
    (name.to_owned(), TrafficInfo { in_bytes: bytes.received, out_bytes: bytes.sent })
}

fn relay_info(relay: &Relay) -> RelayInfo {
    let counters = relay.counters();
    RelayInfo {
        whom: relay.policy().to_string(),
        pin: relay.pin().map(|pin| pin.to_string()).unwrap_or_default(),
        allocations: counters.allocations,
        connections: counters.connections,
        bytes: counters.bytes,
        refused: relay.refused(),
    }
}
