//! What a program that embeds a node asks of it: share, get, list, and connections of its own.
//!
//! Each operation is a value that is awaited, or turned into a stream of [`Update`]s. Dropping it cancels it; what a fetch
//! has verified by then stays, and the next one goes on from there. All of them are `Send`.
//!
//! What it is not: how any of it is done (`commands`, `remote`).

use std::{future::IntoFuture, path::PathBuf};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use keyferry_proto::{
    address::{Address, ShareName},
    message::{FEATURE_PROTOCOLS, ProtocolName, ProtocolReply, Request},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Error, Node,
    api::{Entry, Event, Fetched, NodeAddress, PathInfo, Shared, Wait},
    events::Events,
    progress::{self, Update},
    remote::{ask, reply},
    runner::EVENT_QUEUE,
    sharing::NewShare,
};
use crate::{
    connect::{
        protocols::{Connection, Listener},
        trace::Trace,
    },
    content::{
        store::{Audience, ImportMode},
        transfer::destination::Destination,
    },
};

impl Node {
    /// Shares a file or a folder, where it lies and under the name of its file, with whoever has the address, whenever the node runs.
    pub fn share(&self, path: impl Into<PathBuf>) -> Share<'_> {
        let share = NewShare { name: None, audience: None, options: ImportMode::InPlace.into() };
        Share { node: self, path: path.into(), share }
    }

    /// Fetches what an address names: say where to by [`Get::to`].
    pub fn get(&self, address: &Address) -> Get<'_> {
        Get { node: self, address: address.clone(), wait: Wait::default() }
    }

    /// Lists the catalogue of a node. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// Why the node cannot be reached, or what it says instead.
    pub async fn list(&self, node: impl Into<NodeAddress>) -> Result<Vec<Entry>, Error> {
        let (events, mut told) = mpsc::channel(EVENT_QUEUE);
        let node = node.into();
        let listing = async move {
            // Its own end of the channel goes with it, which ends the collecting.
            let events = events;
            self.list_to(&node, &events, &CancellationToken::new()).await
        };
        let collecting = async {
            let mut entries = Vec::new();
            while let Some(event) = told.recv().await {
                if let Event::Entry(entry) = event {
                    entries.push(entry);
                }
            }
            entries
        };
        let (listed, entries) = tokio::join!(listing, collecting);
        listed.map(|_| entries)
    }
}

impl Node {
    /// Listens for connections of an application's own protocol. Whoever knows this node's key can open one.
    ///
    /// # Errors
    ///
    /// [`Error::ProtocolTaken`] while somebody listens for it, [`Error::Offline`] without a network.
    pub fn listen(&self, protocol: &ProtocolName) -> Result<Listener, Error> {
        let taken = || Error::ProtocolTaken { protocol: protocol.clone() };
        self.online()?.protocols().listen(protocol.clone()).ok_or_else(taken)
    }

    /// Connects to whoever listens for a protocol at another node, by the best path there is: direct, punched through NATs, or
    /// by a relay. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// Why the node cannot be reached, or [`Error::ProtocolRefused`] or [`Error::ProtocolUnknown`] if it does not take it.
    pub async fn connect(&self, node: impl Into<NodeAddress>, protocol: &ProtocolName) -> Result<Connection, Error> {
        let NodeAddress { node, hints } = node.into();
        if node == self.key() {
            return Err(self.own_key_sought(&hints).await);
        }
        let session = self.online()?.finder.connect(node, &hints, &Trace::Silent).await?;
        if session.hello().await.is_some_and(|hello| hello.features & FEATURE_PROTOCOLS == 0) {
            return Err(Error::ProtocolUnknown { node });
        }
        let mut stream = ask(&session, &Request::Protocol(protocol.clone())).await?;
        match reply(&session, &mut stream).await? {
            ProtocolReply::Accepted => Ok(Connection::opened(stream, session)),
            ProtocolReply::Refused(why) => Err(Error::ProtocolRefused { node, protocol: protocol.clone(), why }),
        }
    }
}

impl Node {
    /// What is wrong with seeking this node's own key: whether another node has it as well.
    pub(super) async fn own_key_sought(&self, hints: &[libp2p::Multiaddr]) -> Error {
        match &self.online {
            Some(online) if online.finder.seek_twin(hints).await => Error::SameKey,
            _ => Error::OwnKey,
        }
    }
}

impl Connection {
    /// Which path the bytes take, and why.
    pub fn path(&self) -> PathInfo {
        PathInfo::new(Some(self.peer()), &self.path_report())
    }
}

/// Sharing one path: await it, or follow it by [`Share::updates`].
#[derive(Debug)]
#[must_use = "nothing is shared until it is awaited"]
pub struct Share<'a> {
    node: &'a Node,
    path: PathBuf,
    share: NewShare,
}

impl<'a> Share<'a> {
    /// Shares it under this name.
    pub fn name(mut self, name: ShareName) -> Self {
        self.share.name = Some(name);
        self
    }

    /// Offers it to this audience, also if it was shared with another one before.
    pub fn with(mut self, audience: Audience) -> Self {
        self.share.audience = Some(audience);
        self
    }

    /// Copies it into the data folder, so that the original may change or go.
    pub fn copy(mut self) -> Self {
        self.share.options.mode = ImportMode::Copy;
        self
    }

    /// Shares it, and tells how far that is.
    pub fn updates(self) -> BoxStream<'a, Result<Update<Shared>, Error>> {
        progress::updates(|events| self.run(events))
    }

    fn run(self, events: Events) -> BoxFuture<'a, Result<Shared, Error>> {
        async move {
            let Self { node, path, share } = self;
            let path = absolute(path)?;
            // Work on the store is on a thread of its own: it must hear that nobody waits for it any more.
            let cancel = CancellationToken::new();
            let _stop = cancel.clone().drop_guard();
            node.share_path(path, share, &events, &cancel).await
        }
        .boxed()
    }
}

impl<'a> IntoFuture for Share<'a> {
    type Output = Result<Shared, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        progress::quietly(|events| self.run(events))
    }
}

/// A fetch that has still to be told where to put the content.
#[derive(Debug)]
#[must_use = "nothing is fetched until it is said where to"]
pub struct Get<'a> {
    pub(super) node: &'a Node,
    pub(super) address: Address,
    pub(super) wait: Wait,
}

impl<'a> Get<'a> {
    /// Waits so long for whoever has the content, where they are away: at first, and when the connection with them is lost. A
    /// [`Duration`](std::time::Duration) will do, too. By default, it is ten minutes for a node that is known, and some seconds for others
    /// ([`Wait::Known`]).
    pub fn wait(self, wait: impl Into<Wait>) -> Self {
        Self { wait: wait.into(), ..self }
    }

    /// Fetches it into a folder, which is made if need be.
    pub fn to(self, folder: impl Into<PathBuf>) -> GetTo<'a> {
        GetTo { get: self, place: Destination::in_folder(folder.into()) }
    }
}

/// Fetching into a folder: await it, or follow it by [`GetTo::updates`].
#[derive(Debug)]
#[must_use = "nothing is fetched until it is awaited"]
pub struct GetTo<'a> {
    get: Get<'a>,
    place: Destination,
}

impl<'a> GetTo<'a> {
    /// Gives it this name in the folder, in place of the one that it comes with.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|place| place.name = Some(name.into()))
    }

    /// Replaces files that exist, whoever wrote them. Without this, a newer version replaces what an earlier one put there and nobody has changed
    /// since; other files are kept, and are an error.
    pub fn overwrite(self) -> Self {
        self.with(|place| place.overwrite = true)
    }

    /// Removes files that an earlier version had there and this one does not have, if nobody has changed them since.
    pub fn mirror(self) -> Self {
        self.with(|place| place.mirror = true)
    }

    /// Waits until everything is on the disk. Without this, a power cut soon afterwards may take some of it.
    pub fn sync(self) -> Self {
        self.with(|place| place.sync = true)
    }

    /// Offers it to others from there, by its hash. Without this, it is given to nobody.
    pub fn seed(self) -> Self {
        self.with(|place| place.seed = true)
    }

    fn with(mut self, set: impl FnOnce(&mut Destination)) -> Self {
        set(&mut self.place);
        self
    }

    /// Fetches it, and tells how far that is.
    pub fn updates(self) -> BoxStream<'a, Result<Update<Fetched>, Error>> {
        progress::updates(|events| self.run(events))
    }

    fn run(self, events: Events) -> BoxFuture<'a, Result<Fetched, Error>> {
        async move {
            let Self { get: Get { node, address, wait }, mut place } = self;
            place.folder = absolute(place.folder)?;
            let cancel = CancellationToken::new();
            let _stop = cancel.clone().drop_guard();
            node.fetch_to(&address, place, wait, &events, &cancel).await
        }
        .boxed()
    }
}

impl<'a> IntoFuture for GetTo<'a> {
    type Output = Result<Fetched, Error>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        progress::quietly(|events| self.run(events))
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(|source| Error::Path { path, source })
}
