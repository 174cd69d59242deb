//! Answers what a peer asks on a stream: names, the catalogue, content.
//!
//! What is not offered to a peer does not exist for it: it hears what it would hear of a name or a hash that nobody has, and for that no
//! file is opened. An answer ends as soon as its content is withdrawn.
//!
//! What it is not: a keeper of sessions (`crate::net::session`), or of what is shared (`crate::content::store`).

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use keyferry_proto::{
    catalogue::{CatalogueEntry, SignedEntry},
    dialling::Sought,
    hash::{ContentFormat, ContentHash},
    identity::{NodeKey, NodeSecret},
    message::{
        CatalogueReply, ContentHeader, ContentReply, ContentRequest, ItemStatus, Message, ProtocolName, Refusal,
        Request, ResolveReply,
    },
    transfer::{
        layout::{Layout, LayoutError},
        units::UnitRanges,
    },
};
use tokio::{
    io::AsyncWriteExt,
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::timeout,
};

use crate::{
    base::{
        counters::{Counter, counters},
        data_dir::KnownContacts,
    },
    content::store::{Asker, Blob, BlobError, Root, RootState, Store, StoreError},
    net::session::{ReadError, Session, SessionStream, read_message},
};

/// A peer that opened a stream has this long to say what it wants.
const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// A peer that takes no bytes for this long is given up.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// While others wait for their turn, a peer that has not taken the piece at hand for this long is given up.
const CONTENDED_WRITE_DEADLINE: Duration = Duration::from_secs(8);
/// Requests for content that are served at once, over all sessions; further ones wait.
const MAX_SERVED_AT_ONCE: usize = 64;
/// The same for one session; whoever fetches has one request at a time.
const MAX_SERVED_OF_SESSION: usize = 4;
/// Names and catalogues that are answered at once, over all sessions.
const MAX_ANSWERED_AT_ONCE: usize = 64;
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
    counters: Arc<ServeCounters>,
    sent_bytes: Arc<Counter>,
}

/// Serves one session. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionServer {
    server: ContentServer,
    /// The places of this session.
    places: Arc<Semaphore>,
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
    content: Semaphore,
    answers: Semaphore,
    /// Requests for content that wait for a place.
    waiting: AtomicUsize,
    /// Folders that are being sent: their lists of files are large, and many peers may ask for the same one.
    folders: Mutex<HashMap<ContentHash, Weak<Described>>>,
}

/// How content is described to whoever asks for it.
#[derive(Debug)]
struct Described {
    format: ContentFormat,
    size: u64,
    layout: Layout,
}

counters! {
    /// What was served, and what could not be.
    pub struct ServeCounters {
        /// Requests that were malformed or late.
        pub bad_requests = "requests_malformed",
        /// Requests for what is not here.
        pub not_found = "requests_not_found",
        /// Files that changed or vanished since they were shared.
        pub changed_sources = "sources_changed",
    }
}

/// Why an answer ended early.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    /// The peer's fault.
    #[error("the peer's request is malformed: {0}")]
    BadRequest(ReadError),
    /// The peer's fault.
    #[error("the peer opened a stream and did not say what for within {REQUEST_DEADLINE:?}")]
    NoRequest,
    /// The peer's fault.
    #[error("the peer opened a second control stream")]
    SecondControl,
    /// The peer's fault.
    #[error("the peer asked for something else than the session is for")]
    NotSought,
    /// This side's fault: the store holds something that has no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// This side's will.
    #[error("the content is not offered to the peer any more")]
    Withdrawn,
    /// The connection's or the peer's fault.
    #[error("the answer could not be sent: {0}")]
    Send(#[from] std::io::Error),
    /// The peer went away, or takes no bytes.
    #[error("the peer stopped reading")]
    Gone,
    /// This side's fault: the source is not what was shared.
    #[error(transparent)]
    Source(#[from] BlobError),
    /// This side's fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ContentServer {
    /// Makes a server.
    pub fn new(store: Store, secret: NodeSecret, contacts: KnownContacts) -> Self {
        let limits = ServeLimits {
            content: Semaphore::new(MAX_SERVED_AT_ONCE),
            answers: Semaphore::new(MAX_ANSWERED_AT_ONCE),
            waiting: AtomicUsize::new(0),
            folders: Mutex::default(),
        };
        Self { store, secret, contacts, limits: Arc::new(limits), counters: Arc::default(), sent_bytes: Arc::default() }
    }

    /// Serves one more session, which has places of its own, and in which nothing is answered but what it was made for.
    pub fn for_session(&self, session: &Session) -> SessionServer {
        let peer = match session.sought() {
            Sought::Node(_) => SessionPeer::Node(session.peer()),
            Sought::Content(hash) => SessionPeer::Seeking(hash),
        };
        SessionServer { server: self.clone(), places: Arc::new(Semaphore::new(MAX_SERVED_OF_SESSION)), peer }
    }

    #[cfg(test)]
    pub(super) fn content_places_taken(&self) -> usize {
        MAX_SERVED_AT_ONCE - self.limits.content.available_permits()
    }

    /// Content bytes handed to sessions so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// What has been served so far.
    pub fn counters(&self) -> &ServeCounters {
        &self.counters
    }
}

impl SessionServer {
    /// Answers one stream that a peer opened, to its end. One that is for an application is given back, with the name of its
    /// protocol.
    pub async fn serve(&self, mut stream: SessionStream) -> Option<(ProtocolName, SessionStream)> {
        match self.answer(&mut stream).await {
            Ok(protocol) => protocol.map(|protocol| (protocol, stream)),
            Err(error) => {
                if matches!(
                    error,
                    ServeError::BadRequest(_)
                        | ServeError::NoRequest
                        | ServeError::SecondControl
                        | ServeError::NotSought
                ) {
                    self.server.counters.bad_requests.add_one();
                }
                tracing::debug!(%error, "an answer ended early");
                None
            }
        }
    }

    async fn answer(&self, stream: &mut SessionStream) -> Result<Option<ProtocolName>, ServeError> {
        let request = match timeout(REQUEST_DEADLINE, read_message(stream)).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) => return Err(ServeError::NoRequest),
            Ok(Err(error)) => return Err(ServeError::BadRequest(error)),
            Err(_) => return Err(ServeError::NoRequest),
        };
        if let SessionPeer::Seeking(sought) = self.peer
            && !matches!(&request, Request::Content(content) if content.root == sought)
        {
            return Err(ServeError::NotSought);
        }
        match request {
            Request::Resolve(name) => {
                let _place = self.server.limits.answers.acquire().await.map_err(|_| ServeError::Gone)?;
                let asker = self.asker().await;
                let root = self.server.store.root_named(&name).filter(|root| root.is_offered_to(&asker));
                let entry = root.and_then(|root| self.server.entry(&root));
                let reply = entry.map_or(ResolveReply::NotFound, ResolveReply::Found);
                send(stream, &reply.to_frame()).await?;
            }
            Request::Catalogue => {
                let _place = self.server.limits.answers.acquire().await.map_err(|_| ServeError::Gone)?;
                self.send_catalogue(stream).await?;
            }
            Request::Content(request) => {
                let _own = self.places.acquire().await.map_err(|_| ServeError::Gone)?;
                let _place = self.server.limits.content_place().await?;
                self.send_content(stream, request).await?;
            }
            Request::Protocol(protocol) => return Ok(Some(protocol)),
            Request::Control(_) => {
                return Err(ServeError::SecondControl);
            }
        }
        timeout(WRITE_DEADLINE, stream.shutdown()).await.map_err(|_| ServeError::Gone)??;
        Ok(None)
    }

    /// Who asks, as of now.
    async fn asker(&self) -> Asker {
        let SessionPeer::Node(key) = self.peer else { return Asker::ByHash };
        let contacts = self.server.contacts.clone();
        let is_contact = tokio::task::spawn_blocking(move || contacts.include(&key)).await.unwrap_or_default();
        Asker::Node { key, is_contact }
    }

    async fn send_catalogue(&self, stream: &mut SessionStream) -> Result<(), ServeError> {
        let asker = self.asker().await;
        let is_shown = |root: &&Root| match &root.state {
            RootState::Shared { audience, .. } => audience.is_shown_to(&asker),
            RootState::Seeded | RootState::Kept => false,
        };
        let mut bytes = Vec::new();
        let mut count = 0;
        let roots = self.server.store.roots();
        for entry in roots.iter().filter(is_shown).filter_map(|root| self.server.entry(root)) {
            bytes.extend(CatalogueReply::Entry(entry).to_frame());
            count += 1;
            if bytes.len() >= PIECE_LEN {
                send(stream, &bytes).await?;
                bytes.clear();
            }
        }
        bytes.extend(CatalogueReply::End { count }.to_frame());
        send(stream, &bytes).await
    }

    /// Reads on a blocking thread, a few pieces ahead of the network.
    async fn send_content(&self, stream: &mut SessionStream, request: ContentRequest) -> Result<(), ServeError> {
        let withdrawn = self.withdrawn(request.root);
        let Some(format) = self.offered(&request.root).await else {
            self.server.counters.not_found.add_one();
            return send(stream, &ContentReply::Refused(Refusal::NotFound).to_frame()).await;
        };
        let (pieces, mut ready) = mpsc::channel(PIECES_AHEAD);
        let (empties, returned) = mpsc::channel(PIECES_AHEAD + 1);
        let server = self.server.clone();
        let producer = tokio::task::spawn_blocking(move || {
            let mut answer = ContentAnswer { server, pieces, returned, piece: Vec::new() };
            answer.produce(&request, format)
        });
        let ContentServer { limits, sent_bytes, .. } = &self.server;
        let sending = async {
            while let Some(mut piece) = ready.recv().await {
                limits.send_in_turn(stream, &piece).await?;
                sent_bytes.add(piece.len() as u64);
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

    /// Ends when a content is not offered to the peer any more. Changes count from the call on.
    fn withdrawn(&self, root: ContentHash) -> impl Future<Output = ()> + '_ {
        let mut roots = self.server.store.watch_roots();
        async move {
            while self.offered(&root).await.is_some() {
                // It fails only without a store, which this side holds.
                let _ = timeout(LOOK_AT_CONTACTS_EVERY, roots.changed()).await;
            }
        }
    }

    async fn offered(&self, root: &ContentHash) -> Option<ContentFormat> {
        self.server.store.offered(root, &self.asker().await)
    }
}

impl ContentServer {
    fn entry(&self, root: &Root) -> Option<SignedEntry> {
        let name = root.name()?.clone();
        let Root { hash, format, size, files, .. } = *root;
        Some(SignedEntry::sign(&CatalogueEntry { name, hash, format, size, files }, &self.secret))
    }
}

impl ServeLimits {
    /// Waits for a place among those who are sent content.
    async fn content_place(&self) -> Result<SemaphorePermit<'_>, ServeError> {
        if let Ok(place) = self.content.try_acquire() {
            return Ok(place);
        }
        let _waiting = WaitingAnswer::new(&self.waiting);
        self.content.acquire().await.map_err(|_| ServeError::Gone)
    }

    /// Sends a piece; a peer that takes it slowly is given up while others wait.
    async fn send_in_turn(&self, stream: &mut SessionStream, bytes: &[u8]) -> Result<(), ServeError> {
        let begin = Instant::now();
        let mut sending = std::pin::pin!(stream.write_all(bytes));
        loop {
            if let Ok(sent) = timeout(CONTENDED_WRITE_DEADLINE, &mut sending).await {
                return Ok(sent?);
            }
            if begin.elapsed() >= WRITE_DEADLINE || self.waiting.load(Ordering::Relaxed) > 0 {
                return Err(ServeError::Gone);
            }
        }
    }

    /// The description of a folder, shared by all who are sent it now. One list of files is read at a time.
    fn folder(&self, store: &Store, root: &ContentHash) -> Result<Option<Arc<Described>>, ServeError> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(described) = folders.get(root).and_then(Weak::upgrade) {
            return Ok(Some(described));
        }
        let Some(manifest) = store.manifest(root)? else { return Ok(None) };
        let size = manifest.encoded_len() as u64;
        let layout = Layout::collection(*root, size, &manifest)?;
        let described = Arc::new(Described { format: ContentFormat::Collection, size, layout });
        folders.retain(|_, other| other.strong_count() > 0);
        folders.insert(*root, Arc::downgrade(&described));
        Ok(Some(described))
    }
}

/// One that waits, for as long as this lives.
struct WaitingAnswer<'a>(&'a AtomicUsize);

impl<'a> WaitingAnswer<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for WaitingAnswer<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn send(stream: &mut SessionStream, bytes: &[u8]) -> Result<(), ServeError> {
    timeout(WRITE_DEADLINE, stream.write_all(bytes)).await.map_err(|_| ServeError::Gone)??;
    Ok(())
}

/// The producing half of an answer to a content request.
struct ContentAnswer {
    server: ContentServer,
    pieces: mpsc::Sender<Vec<u8>>,
    returned: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl ContentAnswer {
    fn produce(&mut self, request: &ContentRequest, format: ContentFormat) -> Result<(), ServeError> {
        let described = match self.describe(&request.root, format) {
            Ok(Some(described)) => described,
            Ok(None) => {
                self.server.counters.not_found.add_one();
                return self.refuse(Refusal::NotFound);
            }
            Err(error @ ServeError::Store(_)) => {
                self.note_changed(&error);
                return self.refuse(Refusal::Changed);
            }
            Err(error) => return Err(error),
        };
        let Described { format, size, layout } = &*described;
        self.put(&ContentReply::Header(ContentHeader { format: *format, size: *size }).to_frame());
        for (_, item, wanted) in layout.select(&request.ranges) {
            let opened = match self.server.store.blob(&item.hash) {
                Ok(Some(blob)) if blob.size() == item.size => Ok(blob),
                Ok(_) => Err(Refusal::NotFound),
                Err(error) => {
                    self.note_changed(&error);
                    Err(Refusal::Changed)
                }
            };
            match opened {
                Ok(blob) => {
                    self.put(&[ItemStatus::Data.to_byte()]);
                    self.put_groups(&blob, &wanted).inspect_err(|error| {
                        if matches!(error, ServeError::Source(_)) {
                            self.server.counters.changed_sources.add_one();
                            tracing::warn!(%error, "a shared file is not what was shared");
                        }
                    })?;
                }
                Err(refusal) => self.put(&[ItemStatus::Refused(refusal).to_byte()]),
            }
        }
        self.flush()
    }

    fn describe(&self, root: &ContentHash, format: ContentFormat) -> Result<Option<Arc<Described>>, ServeError> {
        let ContentServer { store, limits, .. } = &self.server;
        let size = match format {
            ContentFormat::Collection => return limits.folder(store, root),
            ContentFormat::Blob if *root == ContentHash::EMPTY => 0,
            ContentFormat::Blob => match store.blob(root)? {
                Some(blob) => blob.size(),
                None => return Ok(None),
            },
        };
        Ok(Some(Arc::new(Described { format: ContentFormat::Blob, size, layout: Layout::blob(*root, size)? })))
    }

    fn put_groups(&mut self, blob: &Blob, groups: &UnitRanges) -> Result<(), ServeError> {
        let mut pieces = blob.pieces(groups)?;
        while pieces.append_next(&mut self.piece)?.is_some() {
            if self.piece.len() >= PIECE_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Hands a piece to the network.
    fn flush(&mut self) -> Result<(), ServeError> {
        let next = self.returned.try_recv().unwrap_or_else(|_| Vec::with_capacity(PIECE_LEN + 128 * 1024));
        let piece = std::mem::replace(&mut self.piece, next);
        self.pieces.blocking_send(piece).map_err(|_| ServeError::Gone)
    }

    fn put(&mut self, bytes: &[u8]) {
        self.piece.extend_from_slice(bytes);
    }

    fn refuse(&mut self, refusal: Refusal) -> Result<(), ServeError> {
        self.put(&ContentReply::Refused(refusal).to_frame());
        self.flush()
    }

    fn note_changed(&self, error: &dyn std::error::Error) {
        self.server.counters.changed_sources.add_one();
        tracing::warn!(%error, "a shared file is not what was shared");
    }
}
