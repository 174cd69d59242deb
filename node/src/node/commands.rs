//! Carrying out commands that concern the store and the catalogue of this node; `remote` has those that need a peer.
//!
//! What it is not: a user interface, or the work itself; it joins the parts and tells events.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::{
    address::{Address, ShareName},
    hash::ContentHash,
    identity::NodeKey,
};
use libp2p::Multiaddr;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{
        Command, ContactInfo, Event, Failure, FetcherInfo, PingStage, RelayInfo, RootInfo, ShareInfo, Shared, Status,
        TrafficInfo,
    },
    runner::Runner,
};
use crate::{
    base::{
        data_dir::{ContactList, ContactsFile},
        traffic::ByteCount,
    },
    connect::trace::{PathNews, PathSink, StepSink, TraceStep},
    content::{
        store::{Audience, Damage, ImportMode, Root, RootOrigin, RootState, Store, UNFINISHED_GRACE, VerifyProgress},
        transfer::{fetchers::SentOfRoot, staging::Destination},
    },
    net::path::host_candidates,
    node::network::Online,
    reach::{rendezvous::multiaddr_of, turn_server::Relay},
};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Hints in a printed address; more would make it hard to pass on.
const MAX_PRINTED_HINTS: usize = 3;

/// How something is to be shared.
#[derive(Debug, Clone)]
pub(super) struct NewShare {
    /// Under this name; by default that of its file.
    pub(super) name: Option<ShareName>,
    /// To these; by default to those to whom what had the name before was offered, or else everyone.
    pub(super) audience: Option<Audience>,
    pub(super) mode: ImportMode,
}

/// Where a command tells what happens.
pub(crate) type Events = mpsc::Sender<Event>;

/// Tells the steps towards a node as events. A front end that is behind misses some.
pub(crate) fn steps_to(events: &Events) -> StepSink {
    let events = events.clone();
    Arc::new(move |step| {
        let event = match step {
            TraceStep::Doing(message) => Event::Stage { message },
            TraceStep::Done { stage, took, detail, pairs } => {
                Event::PingStage(PingStage { stage, took, detail, pairs: pairs.iter().map(Into::into).collect() })
            }
        };
        let _ = events.try_send(event);
    })
}

/// Tells what becomes of sessions as events.
pub(crate) fn paths_to(events: &Events) -> PathSink {
    let events = events.clone();
    Arc::new(move |news| {
        let events = events.clone();
        let event = match news {
            PathNews::Stands(path) => Event::Connected(path),
            PathNews::Ended(end) => Event::Disconnected(end),
        };
        async move { tell(&events, event).await }.boxed()
    })
}

impl Runner for Node {
    fn run(&self, command: Command, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let notices = std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner));
            for message in notices {
                tell(&events, Event::Notice { message }).await;
            }
            let ended = self.carry_out(command, &events, &cancel).await.map_err(Failure::from);
            if let Err(failure) = &ended {
                tell(&events, Event::Failed(failure.clone())).await;
            }
            ended
        })
    }
}

impl Node {
    async fn carry_out(&self, command: Command, events: &Events, cancel: &CancellationToken) -> Result<(), Error> {
        match command {
            Command::Share { paths, name, copy, watch, audience } => {
                let mode = match (copy, watch) {
                    (true, _) => ImportMode::Copy,
                    (false, true) => ImportMode::Followed,
                    (false, false) => ImportMode::InPlace,
                };
                self.share_all(paths, NewShare { name, audience, mode }, events, cancel).await
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
            Command::Get { address, out_dir, name, overwrite, sync, seed, wait } => {
                let place = Destination { folder: out_dir, name, overwrite, sync, seed };
                let fetched = self.fetch_to(&address, place, wait, events, cancel).await?;
                tell(events, Event::Fetched(fetched)).await;
                Ok(())
            }
            Command::List { node } => {
                let count = self.list_to(&node, events, cancel).await?;
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

    async fn share_all(
        &self,
        paths: Vec<PathBuf>,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        if share.name.is_some() && paths.len() > 1 {
            return Err(Error::OneNameForMany);
        }
        for path in paths {
            let shared = self.share_path(path, share.clone(), events, cancel).await?;
            tell(events, Event::Shared(shared)).await;
        }
        Ok(())
    }

    /// Imports one path and puts it into the catalogue; by default under the name of its file.
    pub(super) async fn share_path(
        &self,
        path: PathBuf,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Shared, Error> {
        let name = match &share.name {
            Some(name) => name.clone(),
            None => default_name(&path)?,
        };
        let root = self.import(path, name.clone(), share, events, cancel).await?;
        self.tell_of_changed_roots();
        let Root { hash, format, size, files, state, .. } = root;
        let audience = match state {
            RootState::Shared { audience, .. } => audience,
            RootState::Seeded | RootState::Kept => return Err(Error::NotSharedHere { name }),
        };
        let address = Address::named(self.key(), name.clone());
        let address_with_hints = address.clone().with_hints(self.hints()).unwrap_or_else(|_| address.clone());
        Ok(Shared { name, hash, format, size, files, audience, address, address_with_hints })
    }

    async fn import(
        &self,
        path: PathBuf,
        name: ShareName,
        share: NewShare,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Root, Error> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (events, pace) = (events.clone(), EventPace::default());
        let skipped_to = events.clone();
        let imported = self.blocking(cancel, &cancelled, {
            let cancelled = Arc::clone(&cancelled);
            move |store| {
                let progress = |progress: crate::content::store::ImportProgress| {
                    if pace.is_due() {
                        // A front end that is behind misses some progress, no more.
                        let _ = events.try_send(Event::Importing {
                            done_bytes: progress.done_bytes,
                            total_bytes: progress.total_bytes,
                            done_files: progress.done_files,
                            total_files: progress.total_files,
                        });
                    }
                };
                store.import(&path, &name, share.audience.as_ref(), share.mode, &progress, &cancelled)
            }
        });
        let imported = imported.await?;
        for (path, why) in &imported.skipped {
            tell(&skipped_to, Event::Notice { message: format!("left out {}: {why}", path.display()) }).await;
        }
        if imported.skipped_count > imported.skipped.len() as u64 {
            let more = imported.skipped_count - imported.skipped.len() as u64;
            tell(&skipped_to, Event::Notice { message: format!("left out {more} more") }).await;
        }
        Ok(imported.root)
    }

    /// Takes a name out of the catalogue. The content is offered no more, also where it is being sent, and is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotSharedHere`] if there is no such name.
    pub async fn unshare(&self, name: &ShareName) -> Result<(), Error> {
        let unwanted = name.clone();
        match self.quick(move |store| store.unshare(&unwanted)).await? {
            Some(_) => self.tell_of_changed_roots(),
            None => return Err(Error::NotSharedHere { name: name.clone() }),
        }
        Ok(())
    }

    /// Ends every offer of a content, under whatever name, also where it is being sent. It is kept.
    ///
    /// # Errors
    ///
    /// [`Error::NotOfferedHere`] if it is not offered.
    pub async fn withdraw(&self, hash: &ContentHash) -> Result<(), Error> {
        let hash = *hash;
        match self.quick(move |store| store.withdraw(&hash)).await? {
            true => self.tell_of_changed_roots(),
            false => return Err(Error::NotOfferedHere { hash }),
        }
        Ok(())
    }

    async fn shares(&self, events: &Events) -> Result<(), Error> {
        let file = ContactsFile::of(self.home.root());
        let contacts = self.quick(move |_| file.read()).await?;
        let offered = self.store.roots().into_iter().filter(|root| root.state != RootState::Kept);
        let mut count = 0;
        for root in offered {
            let fetched = fetchers(&self.server.sent_of(&root.hash), &contacts);
            let named_contacts = named_contacts(&root, &contacts);
            tell(events, Event::Share(ShareInfo { root: root_info(root), named_contacts, fetched })).await;
            count += 1;
        }
        tell(events, Event::Shares { count }).await;
        Ok(())
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
    async fn blocking<T, E, F>(
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

/// Tells an event; a front end that is gone misses it.
pub(crate) async fn tell(events: &Events, event: Event) {
    let _ = events.send(event).await;
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

fn default_name(path: &Path) -> Result<ShareName, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::NoShareName { path: path.to_owned() })?;
    Ok(name.parse()?)
}

fn root_info(root: Root) -> RootInfo {
    let (path, followed) = match root.origin {
        RootOrigin::InPlace { path, followed } => (Some(path), followed),
        RootOrigin::Fetched { path } => (Some(path), false),
        RootOrigin::Copied => (None, false),
    };
    let Root { state, hash, format, size, files, .. } = root;
    RootInfo { state, hash, format, size, files, path, followed }
}

fn named_contacts(root: &Root, contacts: &ContactList) -> Vec<ContactInfo> {
    let RootState::Shared { audience: Audience::Only(invited), .. } = &root.state else { return Vec::new() };
    let contact = |node: &NodeKey| {
        contacts.name_of(node).map(|name| ContactInfo { node: node.to_string(), name: name.to_string() })
    };
    invited.nodes().iter().filter_map(contact).collect()
}

fn fetchers(sent: &SentOfRoot, contacts: &ContactList) -> Vec<FetcherInfo> {
    let one_by_one = sent.nodes().into_iter().map(|to| FetcherInfo {
        node: Some(to.node.to_string()),
        contact: contacts.name_of(&to.node).map(ToString::to_string),
        bytes: to.sent.bytes,
        last: to.sent.last.0,
    });
    let others = sent.others();
    let others = FetcherInfo { node: None, contact: None, bytes: others.bytes, last: others.last.0 };
    one_by_one.chain((others.bytes > 0).then_some(others)).collect()
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

/// Lets something through a few times a second.
#[derive(Debug, Default)]
pub(crate) struct EventPace(Mutex<Option<Instant>>);

impl EventPace {
    /// Whether it is time again.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}
