//! Providers that behave as a test wants.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keyferry_proto::{
    dialling::Sought,
    frame::encode_frame,
    hash::{ContentFormat, ContentHash},
    identity::{NodeKey, NodeSecret},
    message::{ContentHeader, ContentReply, ContentRequest, Message, Refusal, Request},
    transfer::{
        groups::{GroupSteps, Step},
        layout::Layout,
        units::UnitRanges,
    },
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use tokio_util::sync::CancellationToken;

use super::super::serve::{ContentServer, SessionServer, SourceTrouble};
use crate::{
    base::data_dir::{ContactsFile, KnownContacts},
    content::store::Store,
    net::{
        path::{AddressPolicy, Path, PathKind, PathReport},
        session::{Session, SessionStream, SessionTls},
    },
};

/// What a provider does when it is asked for content.
#[derive(Debug, Clone, Copy)]
pub(super) enum Behaviour {
    /// The real server.
    Serve,
    /// All that is asked for, at once.
    Honest,
    /// The right description, and then bytes that are not the content.
    Garbage,
    /// A wrong description, and then bytes that are not the content.
    Claim(ContentFormat, u64),
    /// Calls a folder's list of files a file, and gives it.
    CollectionAsBlob,
    Refuse(Refusal),
    /// So many times there is no place, and then the real server.
    BusyAtFirst {
        requests: usize,
    },
    /// So many groups every 100 ms.
    Slow {
        groups: usize,
    },
    Drip {
        groups: usize,
        pause: Duration,
    },
    /// So many groups, and then nothing more, until the connection is cut.
    HangAfter {
        groups: usize,
    },
}

impl Behaviour {
    /// How it behaves at the request of this number, from 0.
    fn at_request(self, number: usize) -> Self {
        match self {
            Self::BusyAtFirst { requests } if number < requests => Self::Refuse(Refusal::Busy),
            Self::BusyAtFirst { .. } => Self::Serve,
            other => other,
        }
    }
}

pub(super) struct Provider {
    secret: NodeSecret,
    addr: SocketAddr,
    server: ContentServer,
    answers: Arc<AtomicUsize>,
    cut: CancellationToken,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Provider {
    pub(super) async fn start(key: u8, store: Store, behaviour: Behaviour) -> Self {
        let secret = NodeSecret::from_bytes(&[key; 32]);
        let tls = SessionTls::new(&secret).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (answers, cut) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let contacts = KnownContacts::of(ContactsFile::of(std::path::Path::new("nobody is a contact")));
        let server = ContentServer::new(store.clone(), secret.clone(), contacts);
        let (to_serve, count, until) = (server.clone(), Arc::clone(&answers), cut.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, remote)) = listener.accept().await {
                let report = PathReport::accepted(remote, &AddressPolicy::for_listeners(&[addr]).unwrap());
                let stream = stream.into_std().unwrap();
                let socket = Arc::new(stream.try_clone().unwrap());
                let stream = TcpStream::from_std(stream).unwrap();
                let path = Path { stream: stream.into(), report };
                // Whoever has dialled may be gone again by now.
                let Ok((session, mut inbound)) = Session::accept(path, &tls).await else { continue };
                let (store, server, count) = (store.clone(), to_serve.for_session(&session), Arc::clone(&count));
                let (cut, asked) = (until.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    while let Some(stream) = inbound.next().await {
                        let (store, server, count) = (store.clone(), server.clone(), Arc::clone(&count));
                        let (session, socket, cut) = (session.clone(), Arc::clone(&socket), cut.clone());
                        let number = asked.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(async move {
                            count.fetch_add(1, Ordering::SeqCst);
                            let behaviour = behaviour.at_request(number);
                            let answering = answer(&session, &socket, &cut, stream, &store, &server, behaviour);
                            answering.await;
                            count.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        Self { secret, addr, server, answers, cut, accepting }
    }

    pub(super) fn node(&self) -> NodeKey {
        self.secret.public()
    }

    /// A new session with this provider, as the one who fetches sees it.
    pub(super) async fn session(&self) -> Session {
        self.session_by(PathKind::Dialled).await
    }

    /// The same, but it counts as one by another kind of path.
    pub(super) async fn session_by(&self, kind: PathKind) -> Session {
        self.session_of(99, kind).await
    }

    /// The same, with the node that has this key.
    pub(super) async fn session_of(&self, key: u8, kind: PathKind) -> Session {
        let tls = SessionTls::new(&NodeSecret::from_bytes(&[key; 32])).unwrap();
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let policy = AddressPolicy::for_listeners(&[self.addr]).unwrap();
        let report = PathReport { kind, ..PathReport::dialled(self.addr, &policy, Duration::ZERO) };
        let (session, inbound) =
            Session::dial(Path { stream: stream.into(), report }, &tls, Sought::Node(self.node())).await.unwrap();
        drop(inbound);
        session
    }

    /// Cuts the connections of those who got all that this provider gives before it hangs, and from now on at once.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Hears of files that the server cannot serve.
    pub(super) fn troubles(&self) -> tokio::sync::broadcast::Receiver<SourceTrouble> {
        self.server.troubles()
    }

    /// Requests that are being answered.
    pub(super) fn open_answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    pub(super) fn places_taken(&self) -> usize {
        self.server.content_places_taken()
    }
}

/// A stream on which everything was asked for, and from which nobody reads.
pub(super) async fn ask_for_all(session: &Session, root: ContentHash) -> SessionStream {
    let mut stream = session.open().await.unwrap();
    let request = ContentRequest::groups(root, UnitRanges::all());
    stream.write_all(&Request::Content(request).to_frame()).await.unwrap();
    stream
}

async fn answer(
    session: &Session,
    socket: &std::net::TcpStream,
    cut: &CancellationToken,
    mut stream: SessionStream,
    store: &Store,
    server: &SessionServer,
    behaviour: Behaviour,
) {
    if let Behaviour::Serve = behaviour {
        server.serve(stream).await;
        return;
    }
    let Ok(Some(Request::Content(request))) = crate::net::session::read_message(&mut stream).await else { return };
    let garbage = vec![0x55; 1 << 20];
    let (header, body) = reply(store, &request);
    let (first, rest, pause) = match behaviour {
        Behaviour::Serve | Behaviour::BusyAtFirst { .. } | Behaviour::Honest => (usize::MAX, None, Duration::ZERO),
        Behaviour::Garbage => return send(&mut stream, &[&header, &[0], &garbage]).await,
        Behaviour::Claim(format, size) => {
            return send(&mut stream, &[&self::header(format, size), &[0], &garbage]).await;
        }
        Behaviour::CollectionAsBlob => {
            let manifest = store.manifest(&request.root).unwrap().unwrap().encode();
            let header = self::header(ContentFormat::Blob, manifest.len() as u64);
            return send(&mut stream, &[&header, &[0], &manifest]).await;
        }
        Behaviour::Refuse(why) => {
            return send(&mut stream, &[&ContentReply::Refused(why).to_frame()]).await;
        }
        Behaviour::Slow { groups } => (groups, Some(groups), Duration::from_millis(100)),
        Behaviour::Drip { groups, pause } => (groups, Some(groups), pause),
        Behaviour::HangAfter { groups } => (groups, None, Duration::from_secs(600)),
    };
    if stream.write_all(&header).await.is_err() {
        return;
    }
    let (mut groups, mut next) = (0, first);
    for (bytes, is_group) in body {
        if groups == next && is_group {
            let gone = session.closed();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cut.cancelled() => return socket.shutdown(std::net::Shutdown::Both).unwrap_or_default(),
                _ = gone => return,
            }
            next += rest.unwrap_or(usize::MAX / 2);
        }
        groups += usize::from(is_group);
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

async fn send(stream: &mut SessionStream, parts: &[&[u8]]) {
    for part in parts {
        if stream.write_all(part).await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}

fn header(format: ContentFormat, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&ContentReply::Header(ContentHeader { format, size }).encode(), &mut bytes);
    bytes
}

/// The whole honest answer: the header, and then pieces of which each is a group or what goes with it.
fn reply(store: &Store, request: &ContentRequest) -> (Vec<u8>, Vec<(Vec<u8>, bool)>) {
    let manifest = store.root(&request.root).filter(|root| root.format == ContentFormat::Collection);
    let (format, size, layout) = match manifest.and_then(|_| store.manifest(&request.root).unwrap()) {
        Some(manifest) => {
            let size = manifest.encoded_len() as u64;
            (ContentFormat::Collection, size, Layout::collection(request.root, size, &manifest).unwrap())
        }
        None => {
            let size =
                if request.root == ContentHash::EMPTY { 0 } else { store.blob(&request.root).unwrap().unwrap().size() };
            (ContentFormat::Blob, size, Layout::blob(request.root, size).unwrap())
        }
    };
    let mut body = Vec::new();
    for (_, item, groups) in layout.select(&request.ranges) {
        body.push((vec![0], false));
        let blob = store.blob(&item.hash).unwrap().unwrap();
        for step in GroupSteps::new(item.size, &groups).unwrap() {
            body.push(match step {
                Step::Parent { outboard_offset } => (blob.read_parent(outboard_offset).unwrap().to_vec(), false),
                Step::Leaf { offset, len } => {
                    let mut bytes = vec![0; len];
                    blob.read_at(offset, &mut bytes).unwrap();
                    (bytes, true)
                }
            });
        }
    }
    (header(format, size), body)
}
