//! Carrying out the commands that need a peer: `get` and `ls`.
//!
//! What it is not: the transfer (`crate::content::transfer`) or the finding of peers (`finder`); it joins them and tells events.

use std::{
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use keyferry_proto::{
    address::{Address, ShareName, Target as Wanted},
    catalogue::{CatalogueEntry, SignedEntry},
    hash::{ContentFormat, ContentHash},
    identity::NodeKey,
    message::{CatalogueReply, MAX_CATALOGUE_ENTRIES, Message, Request, ResolveReply},
};
use libp2p::Multiaddr;
use tokio::{io::AsyncWriteExt, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Node,
    api::{Command, Entry, Event, Failure, Fetched, PathInfo, SourceInfo},
    commands::{Events, paths_to, steps_to, tell},
};
use crate::{
    connect::trace::Trace,
    content::transfer::{
        fetch::{FetchProgress, Given, Job, fetch},
        staging::Target,
    },
    net::session::{Session, Stream, read_message},
    node::network::Online,
};

/// How long a peer may take for a short answer.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);
/// Sessions that wait for a fetch to take them.
const MAX_WAITING_HOLDERS: usize = 4;

/// What an address turned out to name.
struct Resolved {
    hash: ContentHash,
    format: Option<ContentFormat>,
    root_size: Option<u64>,
    /// The file or folder name for it.
    name: String,
    /// The session that told, if one was needed.
    session: Option<Session>,
}

impl Node {
    pub(super) async fn get(
        &self,
        address: &str,
        out_dir: PathBuf,
        overwrite: bool,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let address = parse_wanted(address)?;
        let online = self.online()?;
        let resolved = tokio::select! {
            resolved = self.resolve(online, &address, events) => resolved?,
            () = cancel.cancelled() => return Err(Failure::interrupted()),
        };
        let job = Job {
            store: self.store.clone(),
            root: resolved.hash,
            format: resolved.format,
            root_size: resolved.root_size,
            target: Target { out_dir, name: resolved.name, overwrite },
        };
        let (found, holders) = mpsc::channel(MAX_WAITING_HOLDERS);
        let node = address.node().filter(|node| *node != self.key());
        let hints = address.hints().to_vec();
        let finding =
            online.finder.clone().find_holders(resolved.hash, node, hints, resolved.session, found, paths_to(events));
        let progress = |FetchProgress { done_bytes, total_bytes, done_files, total_files }| {
            // A front end that is behind misses some progress, no more.
            let _ = events.try_send(Event::Fetching { done_bytes, total_bytes, done_files, total_files });
        };
        // The finding ends when the fetch takes no more sessions.
        let (outcome, ()) = tokio::join!(fetch(job, holders, progress, cancel.clone()), finding);
        let outcome = outcome?;
        self.received_bytes.fetch_add(outcome.received_bytes, Ordering::Relaxed);
        self.roots_changed.notify_one();
        let fetched = Fetched {
            hash: resolved.hash,
            format: outcome.format,
            path: outcome.path,
            size: outcome.size,
            files: outcome.files,
            received_bytes: outcome.received_bytes,
            resumed_bytes: outcome.resumed_bytes,
            from: outcome.from.iter().map(source).collect(),
            took: started.elapsed(),
            first_byte: outcome.first_byte.map(|at| at.duration_since(started)),
        };
        tell(events, Event::Fetched(fetched)).await;
        Ok(())
    }

    async fn resolve(&self, online: &Online, address: &Address, events: &Events) -> Result<Resolved, Failure> {
        let name = match address.target() {
            Wanted::Content(hash) => {
                let name = hash.to_string();
                tell(events, Event::Stage { message: format!("looking for holders of {}…", &name[..10]) }).await;
                return Ok(Resolved { hash: *hash, format: None, root_size: None, name, session: None });
            }
            Wanted::Name(name) => name,
            Wanted::Catalogue => return Err(names_nothing(address)),
        };
        let node = address.node().ok_or_else(|| Failure::usage("a name needs a node key in front of it"))?;
        if node == self.key() {
            return self.resolve_here(name);
        }
        tell(events, Event::Stage { message: format!("looking for {}", node.short()) }).await;
        let trace = Trace::Words(steps_to(events));
        let session = online.finder.connect(node, address.hints(), &trace).await?;
        tell(events, Event::Stage { message: format!("asking {} for {name}", node.short()) }).await;
        let mut stream = ask(&session, &Request::Resolve(name.clone())).await?;
        let entry = match reply(&session, &mut stream).await? {
            ResolveReply::Found(entry) => verified(&entry, &node)?,
            ResolveReply::NotFound => {
                return Err(Failure::network(format!("{} shares nothing as {name}", node.short()))
                    .try_to(format!("`keyferry ls {node}` lists what it shares")));
            }
        };
        if entry.name != *name {
            return Err(broken(&session, &"it answered with another name"));
        }
        Ok(Resolved {
            hash: entry.hash,
            format: Some(entry.format),
            root_size: (entry.format == ContentFormat::Blob).then_some(entry.size),
            name: name.to_string(),
            session: Some(session),
        })
    }

    fn resolve_here(&self, name: &ShareName) -> Result<Resolved, Failure> {
        let root = self.store.root_named(name).ok_or_else(|| {
            Failure::usage(format!("this node shares nothing as {name}")).try_to("`keyferry store ls` lists names")
        })?;
        Ok(Resolved {
            hash: root.hash,
            format: Some(root.format),
            root_size: None,
            name: name.to_string(),
            session: None,
        })
    }

    pub(super) async fn list(&self, node: &str, events: &Events, cancel: &CancellationToken) -> Result<(), Failure> {
        let (node, hints) = parse_node(node)?;
        let listed = async {
            let count = match node == self.key() {
                true => self.list_own(events).await,
                false => self.list_remote(node, &hints, events).await?,
            };
            tell(events, Event::Listed { count }).await;
            Ok(())
        };
        tokio::select! {
            listed = listed => listed,
            () = cancel.cancelled() => Err(Failure::interrupted()),
        }
    }

    async fn list_own(&self, events: &Events) -> u64 {
        let mut count = 0;
        for root in self.store.roots() {
            if let Some(name) = root.name {
                let (hash, format, size, files) = (root.hash, root.format, root.size, root.files);
                tell(events, entry_event(CatalogueEntry { name, hash, format, size, files })).await;
                count += 1;
            }
        }
        count
    }

    async fn list_remote(&self, node: NodeKey, hints: &[Multiaddr], events: &Events) -> Result<u64, Failure> {
        tell(events, Event::Stage { message: format!("looking for {}", node.short()) }).await;
        let trace = Trace::Words(steps_to(events));
        let session = self.online()?.finder.connect(node, hints, &trace).await?;
        tell(events, Event::Connected(path_info(&session))).await;
        let mut stream = ask(&session, &Request::Catalogue).await?;
        for count in 0..=MAX_CATALOGUE_ENTRIES {
            match reply(&session, &mut stream).await? {
                CatalogueReply::Entry(entry) => tell(events, entry_event(verified(&entry, &node)?)).await,
                CatalogueReply::End { count: told } if told == count => return Ok(count),
                CatalogueReply::End { .. } => return Err(broken(&session, &"the catalogue is incomplete")),
                CatalogueReply::Refused(why) => {
                    return Err(Failure::network(format!("{} does not show its catalogue: {why:?}", node.short())));
                }
            }
        }
        Err(broken(&session, &format!("a catalogue of more than {MAX_CATALOGUE_ENTRIES} entries")))
    }

    pub(super) fn online(&self) -> Result<&Online, Failure> {
        self.online.as_ref().ok_or_else(|| Failure::usage("this needs the network, and the node is offline"))
    }
}

/// Looks whether what was typed can make sense at all, before anything is started for it.
pub(super) fn check(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Get { address, .. } => parse_wanted(address).map(drop),
        Command::List { node } | Command::Ping { node, .. } => parse_node(node).map(drop),
        _ => Ok(()),
    }
}

/// An address that names something to fetch.
fn parse_wanted(text: &str) -> Result<Address, Failure> {
    let address: Address = text.parse()?;
    match address.target() {
        Wanted::Catalogue => Err(names_nothing(&address)),
        Wanted::Name(_) | Wanted::Content(_) => Ok(address),
    }
}

fn names_nothing(address: &Address) -> Failure {
    Failure::usage("the address names a node, but nothing that it shares")
        .try_to(format!("`keyferry ls {address}` lists what it shares"))
}

pub(super) fn parse_node(text: &str) -> Result<(NodeKey, Vec<Multiaddr>), Failure> {
    if let Ok(node) = text.parse() {
        return Ok((node, Vec::new()));
    }
    let address: Address = text.parse()?;
    let node = address.node().ok_or_else(|| {
        Failure::usage("the address names content, but no node").try_to("give a node key, such as 12D3KooW…")
    })?;
    Ok((node, address.hints().to_vec()))
}

async fn ask(session: &Session, request: &Request) -> Result<Stream, Failure> {
    let lost = |error: &dyn std::fmt::Display| Failure::network(format!("the connection was lost: {error}"));
    let mut stream = session.open().await.map_err(|error| lost(&error))?;
    stream.write_all(&request.to_frame()).await.map_err(|error| lost(&error))?;
    Ok(stream)
}

async fn reply<M: Message>(session: &Session, stream: &mut Stream) -> Result<M, Failure> {
    match timeout(REPLY_DEADLINE, read_message(stream)).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(broken(session, &"it ended the stream without an answer")),
        Ok(Err(error)) => Err(broken(session, &error)),
        Err(_) => Err(Failure::network(format!("no answer within {} s", REPLY_DEADLINE.as_secs()))),
    }
}

fn verified(entry: &SignedEntry, node: &NodeKey) -> Result<CatalogueEntry, Failure> {
    entry
        .verify(node)
        .map_err(|error| Failure::network(format!("an entry that {} did not sign: {error}", node.short())))
}

fn broken(session: &Session, error: &dyn std::fmt::Display) -> Failure {
    Failure::network(format!("{} broke the protocol: {error}", session.peer().short()))
}

fn entry_event(entry: CatalogueEntry) -> Event {
    let CatalogueEntry { name, hash, format, size, files } = entry;
    Event::Entry(Entry { name: name.to_string(), hash, format, size, files })
}

fn source(given: &Given) -> SourceInfo {
    SourceInfo { path: PathInfo::new(&given.node, &given.path), bytes: given.bytes }
}

fn path_info(session: &Session) -> PathInfo {
    PathInfo::new(&session.peer(), &session.path())
}
