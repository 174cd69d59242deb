//! Answers what a peer asks on a stream: names, the catalogue, content.
//!
//! What is not offered to a peer does not exist for it: it hears what it would hear of a name or a hash that nobody has, and for that no
//! file is opened. An answer ends as soon as its content is withdrawn.
//!
//! What it is not: a keeper of sessions (`crate::net::session`), or of what is shared (`crate::content::store`).

mod content_answer;
mod descriptions;
mod error;
mod serve_counters;
mod signed_entries;
mod source_troubles;

use std::{
    future::{Future, pending},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use keyferry_proto::{
    catalogue::{CatalogueEntry, SignedEntry},
    dialling::Sought,
    hash::ContentHash,
    identity::{NodeKey, NodeSecret},
    message::{CatalogueReply, ContentReply, ContentRequest, Message, ProtocolName, Refusal, Request, ResolveReply},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf, split},
    sync::{Semaphore, SemaphorePermit, broadcast, mpsc},
    time::timeout,
};

use self::{
    content_answer::{ContentAnswer, ContentSource},
    error::ServeError,
    signed_entries::SignedEntries,
};
pub use self::{
    serve_counters::ServeCounters,
    source_troubles::{SourceFault, SourceTrouble},
};
use super::fetchers::{Fetchers, SentOfRoot};
use crate::{
    base::{
        counters::Counter,
        data_dir::KnownContacts,
        places::{Place, PlaceClaim, PlaceLimits, Places, PlacesFull},
    },
    content::store::{Asker, Root, RootState, Store},
    net::session::{Session, SessionStream, read_message},
};

/// A peer that opened a stream has this long to say what it wants.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// A peer that takes no bytes for this long is given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Requests for content that are served at once, over all sessions; further ones wait. While others wait, nobody has a place for
/// longer than `grace`, however slowly it reads: going on where one stopped costs a round trip.
const UPLOAD_PLACES: PlaceLimits =
    PlaceLimits { in_all: 64, for_contacts: 16, per_host: 64, per_key: 8, grace: Duration::from_secs(10) };
/// Names and catalogues that are answered at once, over all sessions.
const ANSWER_PLACES: PlaceLimits =
    PlaceLimits { in_all: 64, for_contacts: 16, per_host: 64, per_key: 8, grace: Duration::from_secs(2) };
/// How long a request may wait for its place, less than whoever fetches waits for a provider.
const PLACE_PATIENCE: Duration = Duration::from_secs(20);
/// Requests of one session that are answered or wait; a fetch has one at a time.
const MAX_REQUESTS_OF_SESSION: usize = 16;
/// How often it is looked whether a peer that is sent content is still a contact: somebody else may edit that file.
const LOOK_AT_CONTACTS_EVERY: Duration = Duration::from_secs(1);
/// Data is handed to the session in pieces of about this many bytes.
const PIECE_LEN: usize = 256 * 1024;
/// Pieces read ahead of the network, for each request.
const PIECES_AHEAD: usize = 2;

/// Serves the content of a store under a node's identity. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ContentServer {
    store: Store,
    secret: NodeSecret,
    contacts: KnownContacts,
    limits: Arc<ServeLimits>,
    fetchers: Fetchers,
    source: Arc<ContentSource>,
    sent_bytes: Arc<Counter>,
}

/// Serves one session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionServer {
    server: ContentServer,
    /// The requests that this session may have at once.
    requests: Arc<Semaphore>,
    host: IpAddr,
    key: NodeKey,
    peer: SessionPeer,
}

/// With whom a session is.
#[derive(Debug, Clone, Copy)]
enum SessionPeer {
    /// A node.
    Node(NodeKey),
    /// Somebody who knows the hash of this content, under a key that is thrown away.
    Seeking(ContentHash),
}

/// What all sessions share.
#[derive(Debug)]
struct ServeLimits {
    uploads: Places<NodeKey>,
    answers: Places<NodeKey>,
    signed: Mutex<SignedEntries>,
}

impl ContentServer {
    /// Makes a server. Reads from the disk who was sent how much so far.
    pub fn new(store: Store, secret: NodeSecret, contacts: KnownContacts) -> Self {
        let limits = ServeLimits {
            uploads: Places::new(UPLOAD_PLACES),
            answers: Places::new(ANSWER_PLACES),
            signed: Mutex::default(),
        };
        Self {
            fetchers: Fetchers::of(&store),
            source: Arc::new(ContentSource::of(store.clone())),
            store,
            secret,
            contacts,
            limits: Arc::new(limits),
            sent_bytes: Arc::default(),
        }
    }

    /// Serves one more session, in which nothing is answered but what it was made for.
    pub fn for_session(&self, session: &Session) -> SessionServer {
        let peer = match session.sought() {
            Sought::Node(_) => SessionPeer::Node(session.peer()),
            Sought::Content(hash) => SessionPeer::Seeking(hash),
        };
        let requests = Arc::new(Semaphore::new(MAX_REQUESTS_OF_SESSION));
        SessionServer { server: self.clone(), requests, host: session.path().remote.ip(), key: session.peer(), peer }
    }

    /// Whether a node is a contact, as of now.
    pub(crate) async fn is_contact(&self, key: NodeKey) -> bool {
        let contacts = self.contacts.clone();
        tokio::task::spawn_blocking(move || contacts.include(&key)).await.unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn content_places_taken(&self) -> usize {
        self.limits.uploads.count()
    }

    /// Content bytes handed to sessions so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// What was sent of a root, and to whom, over restarts.
    pub fn sent_of(&self, root: &ContentHash) -> SentOfRoot {
        self.fetchers.sent_of(root)
    }

    /// Hears of each file that cannot be served as it was shared, once.
    pub fn troubles(&self) -> broadcast::Receiver<SourceTrouble> {
        self.source.troubles().subscribe()
    }

    /// What has been served so far.
    pub fn counters(&self) -> &ServeCounters {
        self.source.counters()
    }
}

impl SessionServer {
    /// Answers one stream that a peer opened, to its end. One that is for an application is given back, with the name of its
    /// protocol.
    pub async fn serve(&self, mut stream: SessionStream) -> Option<(ProtocolName, SessionStream)> {
        match self.answer(&mut stream).await {
            Ok(protocol) => protocol.map(|protocol| (protocol, stream)),
            Err(error) => {
                let ServeCounters { bad_requests, refused_busy, pushed_out, .. } = self.server.counters();
                match &error {
                    ServeError::BadRequest(_)
                    | ServeError::NoRequest { .. }
                    | ServeError::SecondControl
                    | ServeError::NotSought
                    | ServeError::WentOn => bad_requests.add_one(),
                    ServeError::Busy(_) => refused_busy.add_one(),
                    ServeError::PushedOut => pushed_out.add_one(),
                    _ => {}
                }
                tracing::debug!(%error, "an answer ended early");
                None
            }
        }
    }

    async fn answer(&self, stream: &mut SessionStream) -> Result<Option<ProtocolName>, ServeError> {
        let request = match timeout(REQUEST_DEADLINE, read_message(stream)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) | Err(_) => return Err(ServeError::NoRequest { within: REQUEST_DEADLINE }),
            Ok(Err(error)) => return Err(ServeError::BadRequest(error)),
        };
        if let SessionPeer::Seeking(sought) = self.peer
            && !matches!(&request, Request::Content(content) if content.root == sought)
        {
            return Err(ServeError::NotSought);
        }
        match request {
            Request::Protocol(protocol) => return Ok(Some(protocol)),
            Request::Control(_) => return Err(ServeError::SecondControl),
            Request::Resolve(_) | Request::Catalogue | Request::Content(_) => {}
        }
        let (reader, mut stream) = split(stream);
        tokio::select! {
            replied = self.reply(request, &mut stream) => replied?,
            error = goes_on(reader) => return Err(error),
        }
        Ok(None)
    }

    /// Answers a request, as soon as there is a place for that.
    async fn reply(&self, request: Request, stream: &mut AnswerStream<'_>) -> Result<(), ServeError> {
        let limits = &self.server.limits;
        let (places, busy) = match &request {
            Request::Content(_) => (&limits.uploads, ContentReply::Refused(Refusal::Busy).to_frame()),
            Request::Catalogue => (&limits.answers, CatalogueReply::Refused(Refusal::Busy).to_frame()),
            _ => (&limits.answers, ResolveReply::Refused(Refusal::Busy).to_frame()),
        };
        let (_of_session, mut place) = match self.place(places).await {
            Ok(place) => place,
            Err(full) => {
                send(stream, &busy).await?;
                end(stream).await?;
                return Err(full.into());
            }
        };
        let answer = async {
            match request {
                Request::Resolve(name) => {
                    let asker = self.asker().await;
                    let root = self.server.store.root_named(&name).filter(|root| root.is_offered_to(&asker));
                    let entry = root.and_then(|root| self.server.entry(&root));
                    let reply = entry.map_or(ResolveReply::NotFound, ResolveReply::Found);
                    send(stream, &reply.to_frame()).await?;
                }
                Request::Catalogue => self.send_catalogue(stream).await?,
                Request::Content(request) => self.send_content(stream, request).await?,
                Request::Protocol(_) | Request::Control(_) => {}
            }
            end(stream).await
        };
        tokio::select! {
            answered = answer => answered,
            _ = &mut place.pushed_out => Err(ServeError::PushedOut),
        }
    }

    /// A place for one answer, if there is one in time.
    async fn place(&self, places: &Places<NodeKey>) -> Result<(SemaphorePermit<'_>, Place<NodeKey>), PlacesFull> {
        let of_session = self.requests.try_acquire().map_err(|_| PlacesFull { until: None })?;
        let is_contact = matches!(self.asker().await, Asker::Node { is_contact: true, .. });
        let claim = PlaceClaim::of_key(self.host, self.key, is_contact);
        Ok((of_session, places.enter_within(claim, PLACE_PATIENCE).await?))
    }

    /// Who asks, as of now.
    async fn asker(&self) -> Asker {
        let SessionPeer::Node(key) = self.peer else { return Asker::ByHash };
        Asker::Node { key, is_contact: self.server.is_contact(key).await }
    }

    async fn send_catalogue(&self, stream: &mut AnswerStream<'_>) -> Result<(), ServeError> {
        let asker = self.asker().await;
        let server = self.server.clone();
        let pieces = tokio::task::spawn_blocking(move || server.catalogue(&asker));
        for piece in pieces.await.map_err(|_| ServeError::Gone)? {
            send(stream, &piece).await?;
        }
        Ok(())
    }

    /// Reads on a blocking thread, a few pieces ahead of the network.
    async fn send_content(&self, stream: &mut AnswerStream<'_>, request: ContentRequest) -> Result<(), ServeError> {
        let withdrawn = self.withdrawn(request.root);
        let asker = self.asker().await;
        let Some(format) = self.server.store.offered(&request.root, &asker) else {
            self.server.counters().not_found.add_one();
            return send(stream, &ContentReply::Refused(Refusal::NotFound).to_frame()).await;
        };
        let (pieces, mut ready) = mpsc::channel(PIECES_AHEAD);
        let (empties, returned) = mpsc::channel(PIECES_AHEAD + 1);
        let (source, root) = (Arc::clone(&self.server.source), request.root);
        let producer =
            tokio::task::spawn_blocking(move || ContentAnswer::new(source, pieces, returned).produce(&request, format));
        let ContentServer { sent_bytes, fetchers, .. } = &self.server;
        let fetched = fetchers.sending(root, asker);
        let sending = async {
            while let Some(mut piece) = ready.recv().await {
                send(stream, &piece).await?;
                sent_bytes.add(piece.len() as u64);
                fetched.note(piece.len() as u64);
                piece.clear();
                // A full channel only means that the producer has buffers enough.
                let _ = empties.try_send(piece);
            }
            producer.await.map_err(|_| ServeError::Gone)?
        };
        tokio::select! {
            biased;
            sent = sending => sent,
            () = withdrawn => Err(ServeError::Withdrawn),
        }
    }

    /// Ends when a content that is offered to the peer is so no more. Changes count from the call on.
    fn withdrawn(&self, root: ContentHash) -> impl Future<Output = ()> + '_ {
        let mut roots = self.server.store.watch_roots();
        async move {
            loop {
                // It fails only without a store, which this side holds.
                let _ = timeout(LOOK_AT_CONTACTS_EVERY, roots.changed()).await;
                if self.server.store.offered(&root, &self.asker().await).is_none() {
                    return;
                }
            }
        }
    }
}

impl ContentServer {
    fn entry(&self, root: &Root) -> Option<SignedEntry> {
        let name = root.name()?.clone();
        let Root { hash, format, size, files, attributes, .. } = *root;
        let entry = CatalogueEntry { name, hash, format, size, files, attributes };
        let mut signed = self.limits.signed.lock().unwrap_or_else(PoisonError::into_inner);
        Some(signed.get(entry, |entry| SignedEntry::sign(entry, &self.secret)))
    }

    /// What an asker is shown of the catalogue, in pieces that are sent one after the other. What was not signed before takes a while.
    fn catalogue(&self, asker: &Asker) -> Vec<Vec<u8>> {
        let is_shown = |root: &&Root| match &root.state {
            RootState::Shared { audience, .. } => audience.is_shown_to(asker),
            RootState::Seeded | RootState::Kept => false,
        };
        let roots = self.store.roots();
        let (mut pieces, mut bytes, mut count) = (Vec::new(), Vec::new(), 0);
        for entry in roots.iter().filter(is_shown).filter_map(|root| self.entry(root)) {
            bytes.extend(CatalogueReply::Entry(entry).to_frame());
            count += 1;
            if bytes.len() >= PIECE_LEN {
                pieces.push(std::mem::take(&mut bytes));
            }
        }
        bytes.extend(CatalogueReply::End { count }.to_frame());
        pieces.push(bytes);
        let mut signed = self.limits.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.forget_all_but(&roots);
        pieces
    }
}

/// What an answer is written to.
type AnswerStream<'a> = WriteHalf<&'a mut SessionStream>;

/// Waits until a peer says more than its request, or is gone: what nobody reads would be kept in memory.
async fn goes_on(mut reader: impl AsyncRead + Unpin) -> ServeError {
    match reader.read(&mut [0]).await {
        Ok(0) => pending().await,
        Ok(_) => ServeError::WentOn,
        Err(error) => ServeError::Send(error),
    }
}

async fn send(stream: &mut AnswerStream<'_>, bytes: &[u8]) -> Result<(), ServeError> {
    timeout(WRITE_DEADLINE, stream.write_all(bytes)).await.map_err(|_| ServeError::Gone)??;
    Ok(())
}

async fn end(stream: &mut AnswerStream<'_>) -> Result<(), ServeError> {
    timeout(WRITE_DEADLINE, stream.shutdown()).await.map_err(|_| ServeError::Gone)??;
    Ok(())
}
