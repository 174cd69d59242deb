//! Finding out what an address names, and `get`.
//!
//! What it is not: the transfer (`crate::content::transfer`) or the finding of peers (`finder`); it joins them and tells events.

use std::{
    ffi::OsStr,
    path::{Component, Path, PathBuf},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::{
    address::{Address, AddressTarget, ShareName},
    catalogue::{CatalogueEntry, SignedEntry},
    collection::{FileAttributes, fitting::NameRules},
    hash::{ContentFormat, ContentHash},
    identity::NodeKey,
    message::{Message, Request, ResolveReply},
};
use libp2p::Multiaddr;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node, Offence,
    api::{Event, Fetched, PathInfo, SourceInfo, Wait, WaitOver},
    events::{Events, paths_to, steps_to, tell},
    fetch_events::{tell_changes, tell_kept, tell_missing, tell_not_as_sent},
    waiting::{FetchWait, WaitedFor},
};
use crate::{
    base::{data_dir::ContactsFile, umask::Umask},
    connect::{
        connector::{Finder, SearchBoard, SearchTries, SoughtProviders},
        trace::Trace,
    },
    content::{
        store::Asker,
        transfer::{
            FetchError,
            describing::{ContentDescription, describe},
            destination::Destination,
            fetch::{FetchProgress, FoundSources, Given, Job, fetch},
            staging::FetchTarget,
        },
    },
    net::session::{ReadError, Session, SessionError, SessionStream, read_message},
    node::network::Online,
};

/// How long a peer may take for a short answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);
/// When a stream breaks, its session may have ended, which is known a moment later.
const END_PATIENCE: Duration = Duration::from_secs(1);
/// Sessions that wait for a fetch to take them.
const MAX_WAITING_PROVIDERS: usize = 4;

/// Sessions with nodes that may have some content, and what finds them.
pub(super) struct FoundProviders {
    /// Ends when nobody takes any more sessions, or when the wait for somebody is over, which it tells.
    pub(super) finding: BoxFuture<'static, Option<WaitOver>>,
    pub(super) providers: FoundSources,
}

/// What an address turned out to name.
pub(super) struct Resolved {
    pub(super) hash: ContentHash,
    pub(super) format: Option<ContentFormat>,
    pub(super) root_size: Option<u64>,
    /// What is carried of a file besides its bytes.
    pub(super) attributes: Option<FileAttributes>,
    /// The file or folder name for it.
    pub(super) name: String,
    /// The session that told, if one was needed.
    pub(super) session: Option<Session>,
}

impl Node {
    /// Fetches what an address names into a folder.
    pub(super) async fn fetch_to(
        &self,
        address: &Address,
        place: Destination,
        wait: Wait,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<Fetched, Error> {
        let (started, seed) = (Instant::now(), place.seed);
        let online = self.online()?;
        let (job, session) = tokio::select! {
            job = self.job_for(address, place, wait, events) => job?,
            () = cancel.cancelled() => return Err(Error::Interrupted),
        };
        let hash = job.root;
        let (progress, told) = watch::channel(FetchProgress::default());
        let sought = self.sought(address, hash, session);
        let found = self.find_providers(&online.finder, sought, wait, told, events).await;
        let FoundProviders { finding, providers } = found;
        let fetching = fetch(
            job,
            providers,
            |now| {
                progress.send_replace(now);
            },
            cancel.clone(),
        );
        let (outcome, over) = tokio::join!(fetching, finding);
        if let Err(FetchError::Incomplete(incomplete)) = &outcome {
            tell_missing(incomplete, events).await;
        }
        if let Err(error) = &outcome {
            tell_kept(error, events).await;
        }
        let outcome = outcome.map_err(|error| nobody_came(error, over))?;
        tell_changes(&outcome.changes, events).await;
        self.received_bytes.fetch_add(outcome.received_bytes, Ordering::Relaxed);
        self.tell_of_changed_roots();
        tell_not_as_sent(&outcome.not_as_sent, events).await;
        let seeded = self.store.offered(&hash, &Asker::ByHash).is_some();
        if seed && !seeded {
            let message =
                "it is not given to others by its hash, because you share it with some alone or unannounced".to_owned();
            tell(events, Event::Notice { message }).await;
        }
        Ok(Fetched {
            hash,
            format: outcome.format,
            path: outcome.path,
            was_there: outcome.was_there,
            changes: (&outcome.changes).into(),
            seeded,
            size: outcome.size,
            files: outcome.files,
            received_bytes: outcome.received_bytes,
            resumed_bytes: outcome.resumed_bytes,
            from: outcome.from.iter().map(source).collect(),
            took: started.elapsed(),
            first_byte: outcome.first_byte.map(|at| at.duration_since(started)),
        })
    }

    /// What is to be fetched for an address, and the session that told what it names, if one was needed.
    pub(super) async fn job_for(
        &self,
        address: &Address,
        place: Destination,
        wait: Wait,
        events: &Events,
    ) -> Result<(Job, Option<Session>), Error> {
        let Destination { overwrite, mirror, sync, seed, umask, .. } = place;
        let source = address.without_hints();
        let (folder, name) = self.folder_and_name(place, &source);
        if let Some(name) = name.as_deref().filter(|name| !is_component(name)) {
            return Err(Error::NoFileName { name: name.to_owned() });
        }
        if seed && address.path().is_some() {
            return Err(Error::PartNotOffered { address: address.clone() });
        }
        let resolved = self.resolve(address, wait, events).await?;
        let job = Job {
            store: self.store.clone(),
            root: resolved.hash,
            format: resolved.format,
            root_size: resolved.root_size,
            attributes: resolved.attributes,
            part: address.path().cloned(),
            target: FetchTarget {
                out_dir: folder,
                name: name.unwrap_or(resolved.name),
                source: Some(source),
                umask: umask.filter(|umask| Umask::of_process() != Some(*umask)),
                overwrite,
                mirror,
                sync,
            },
            seed,
        };
        Ok((job, resolved.session))
    }

    /// Which folder a destination means, and which name in it, if that is said.
    fn folder_and_name(&self, place: Destination, source: &Address) -> (PathBuf, Option<String>) {
        let Destination { folder, name, may_be_itself, .. } = place;
        let (Some(parent), Some(itself)) = (folder.parent(), folder.file_name().and_then(OsStr::to_str)) else {
            return (folder, name);
        };
        let is_itself = name.is_none() && may_be_itself && self.store.source_at(&folder).as_ref() == Some(source);
        if is_itself { (parent.to_owned(), Some(itself.to_owned())) } else { (folder, name) }
    }

    /// Who may have the content of an address, given the session that told what it names.
    pub(super) fn sought(&self, address: &Address, root: ContentHash, first: Option<Session>) -> SoughtProviders {
        let node = address.node().filter(|node| *node != self.key());
        SoughtProviders { root, node, hints: address.hints().to_vec(), first, untried: watch::Sender::default() }
    }

    /// Looks for nodes that have the content, for as long as somebody takes their sessions, and the fetch whose `progress` this is waits
    /// for them.
    pub(super) async fn find_providers(
        &self,
        finder: &Finder,
        sought: SoughtProviders,
        wait: Wait,
        progress: watch::Receiver<FetchProgress>,
        events: &Events,
    ) -> FoundProviders {
        let (found, sessions) = mpsc::channel(MAX_WAITING_PROVIDERS);
        let providers = FoundSources { sessions, untried: sought.untried.subscribe() };
        let board = SearchBoard::default();
        if sought.first.is_some() {
            board.found();
        }
        let awaited = match sought.node {
            Some(node) => self.awaited(node).await,
            None => WaitedFor { whom: sought.root.to_string(), contact: None },
        };
        let mut waiting = FetchWait::of_fetch(wait, awaited, &board, progress, events);
        let (finder, paths) = (finder.clone(), paths_to(events));
        let finding = async move {
            // With it goes the channel, which ends a fetch that has nobody.
            tokio::select! {
                () = finder.find_providers(sought, found, paths, board) => {}
                () = waiting.until_over() => {}
            }
            waiting.over()
        };
        FoundProviders { finding: finding.boxed(), providers }
    }

    /// Reaches a node that may be away, again if `was_reached`.
    async fn reach(
        &self,
        node: NodeKey,
        hints: &[Multiaddr],
        wait: Wait,
        was_reached: bool,
        events: &Events,
    ) -> Result<Session, Error> {
        let online = self.online()?;
        let (board, mut tries) = (SearchBoard::default(), SearchTries::default());
        if was_reached {
            board.found();
        }
        let mut waiting = FetchWait::of_search(wait, self.awaited(node).await, &board, events);
        let trace = Trace::Words(steps_to(events));
        tokio::select! {
            session = online.finder.reach(node, hints, &trace, &board, &mut tries) => return Ok(session),
            () = waiting.until_over() => {}
        }
        let why = online.finder.why_not_reached(node, tries);
        Err(match waiting.over() {
            Some(over) if !over.is_final => Error::NobodyCame { why: Box::new(why.into()), over },
            _ => why.into(),
        })
    }

    /// A node as somebody to wait for. A list of contacts that cannot be read knows nobody.
    async fn awaited(&self, node: NodeKey) -> WaitedFor {
        let file = ContactsFile::of(self.home.root());
        let name = move || Some(file.read().ok()?.name_of(&node)?.as_str().to_owned());
        let contact = tokio::task::spawn_blocking(name).await.unwrap_or_default();
        WaitedFor { whom: node.to_string(), contact }
    }

    pub(super) async fn resolve(&self, address: &Address, wait: Wait, events: &Events) -> Result<Resolved, Error> {
        let name = match address.target() {
            AddressTarget::Content(hash) => {
                let name = hash.to_string();
                tell(events, Event::Stage { message: format!("looking for providers of {}…", &name[..10]) }).await;
                return Ok(Resolved {
                    hash: *hash,
                    format: None,
                    root_size: None,
                    attributes: None,
                    name,
                    session: None,
                });
            }
            AddressTarget::Name(name) => name,
            AddressTarget::Catalogue => return Err(Error::NamesNothing { address: address.clone() }),
        };
        let node = address.node().ok_or(Error::NameWithoutNode)?;
        if node == self.key() {
            let here = self.resolve_here(address, name);
            if here.is_err()
                && let error @ Error::SameKey = self.own_key_sought(address.hints()).await
            {
                return Err(error);
            }
            return here;
        }
        tell(events, Event::Stage { message: format!("looking for {}", node.short()) }).await;
        let mut was_reached = false;
        let (session, answer) = loop {
            let session = self.reach(node, address.hints(), wait, was_reached, events).await?;
            tell(events, Event::Stage { message: format!("asking {} for {name}", node.short()) }).await;
            match resolve_name(&session, name).await {
                // It went away just then, and may be back.
                Err(error) if session.end().is_some() && !was_reached => {
                    tracing::debug!(%error, "asking again");
                    was_reached = true;
                }
                answered => break (session, answered?),
            }
        };
        let entry = match answer {
            ResolveReply::Found(entry) => verified(&entry, &node)?,
            ResolveReply::NotFound => return Err(Error::NotSharedThere { node, name: name.clone() }),
            ResolveReply::Refused(why) => return Err(Error::NameRefused { node, name: name.clone(), why }),
        };
        if entry.name != *name {
            return Err(broken(&session, Offence::OtherName));
        }
        Ok(Resolved {
            hash: entry.hash,
            format: Some(entry.format),
            root_size: (entry.format == ContentFormat::Blob).then_some(entry.size),
            attributes: entry.attributes,
            name: file_name(address, name),
            session: Some(session),
        })
    }

    fn resolve_here(&self, address: &Address, name: &ShareName) -> Result<Resolved, Error> {
        let root = self.store.root_named(name).ok_or_else(|| Error::NotSharedHere { name: name.clone() })?;
        Ok(Resolved {
            hash: root.hash,
            format: Some(root.format),
            root_size: None,
            attributes: None,
            name: file_name(address, name),
            session: None,
        })
    }

    /// Asks whoever has the content of an address what it is.
    pub(super) async fn describe(
        &self,
        address: &Address,
        root: ContentHash,
        format: Option<ContentFormat>,
        session: Option<Session>,
        wait: Wait,
        events: &Events,
    ) -> Result<ContentDescription, Error> {
        let (_progress, told) = watch::channel(FetchProgress::default());
        let sought = self.sought(address, root, session);
        let found = self.find_providers(&self.online()?.finder, sought, wait, told, events).await;
        let FoundProviders { finding, providers } = found;
        let (described, over) = tokio::join!(describe(root, format, providers), finding);
        described.map_err(|error| nobody_came(error, over))
    }

    pub(super) fn online(&self) -> Result<&Online, Error> {
        self.online.as_ref().ok_or(Error::Offline)
    }
}

/// What the content of an address is called: by the last name in it, as text.
fn file_name(address: &Address, name: &ShareName) -> String {
    let rules = NameRules { is_utf8: true, ..NameRules::default() };
    match address.path() {
        None => name.to_string(),
        Some(path) => String::from_utf8(rules.fit(path.last())).unwrap_or_else(|_| name.to_string()),
    }
}

/// Whether a name is that of one file in a folder, and leads nowhere else.
fn is_component(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(only)) if only == name) && components.next().is_none()
}

/// Opens a stream and asks something on it.
pub(super) async fn ask(session: &Session, request: &Request) -> Result<SessionStream, Error> {
    let mut stream = session.open().await?;
    match stream.write_all(&request.to_frame()).await {
        Ok(()) => Ok(stream),
        Err(error) => Err(broken_off(session).await.unwrap_or(Error::StreamLost(error))),
    }
}

/// Reads the short answer to what was asked.
pub(super) async fn reply<M: Message>(session: &Session, stream: &mut SessionStream) -> Result<M, Error> {
    match timeout(REPLY_DEADLINE, read_message(stream)).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(broken(session, Offence::NoAnswer)),
        Ok(Err(error @ ReadError::Io(_))) => Err(broken_off(session).await.unwrap_or_else(|| broken(session, error))),
        Ok(Err(error)) => Err(broken(session, error)),
        Err(_) => Err(Error::NoAnswer { within: REPLY_DEADLINE }),
    }
}

/// Why a stream broke, if that is because its session has ended.
async fn broken_off(session: &Session) -> Option<Error> {
    let end = timeout(END_PATIENCE, session.closed()).await.ok()?;
    Some(Error::Lost(SessionError::Ended(end)))
}

/// The error of a fetch, which may have ended because nobody came.
pub(super) fn nobody_came(error: FetchError, over: Option<WaitOver>) -> Error {
    match (error, over) {
        (error @ (FetchError::NotFound { .. } | FetchError::NoProvider { .. }), Some(over)) => {
            Error::NobodyCame { why: Box::new(error.into()), over }
        }
        (error, _) => error.into(),
    }
}

async fn resolve_name(session: &Session, name: &ShareName) -> Result<ResolveReply, Error> {
    let mut stream = ask(session, &Request::Resolve(name.clone())).await?;
    reply(session, &mut stream).await
}

pub(super) fn verified(entry: &SignedEntry, node: &NodeKey) -> Result<CatalogueEntry, Error> {
    entry.verify(node).map_err(|source| Error::Entry { node: *node, source })
}

pub(super) fn broken(session: &Session, offence: impl Into<Offence>) -> Error {
    Error::Broken { node: session.peer(), source: offence.into() }
}

fn source(given: &Given) -> SourceInfo {
    SourceInfo { path: PathInfo::new(given.by.node(), &given.path), bytes: given.bytes }
}

pub(super) fn path_info(session: &Session) -> PathInfo {
    PathInfo::new(session.peer_name().node(), &session.path())
}
