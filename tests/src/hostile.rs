//! A peer that speaks the real session protocol, with the library, and answers requests as a test wants: truthfully,
//! or not.
//!
//! What it is not: a node. It takes part in no DHT; who wants it is given its address as a hint.

use std::{collections::HashMap, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::{Context, Result, ensure};
use keyferry::net::{
    path::{AddressPolicy, Path, PathReport},
    session::{InboundStreams, Session, SessionStream, SessionTls},
};
use keyferry_proto::{
    catalogue::{CatalogueEntry, SignedEntry},
    collection::Manifest,
    frame::{FrameDecoder, encode_frame},
    hash::{ContentFormat, ContentHash},
    identity::{NodeKey, NodeSecret},
    message::{
        ContentHeader, ContentReply, ContentRequest, ControlMessage, Goodbye, Hello, Message, Request, ResolveReply,
        VERSION,
    },
    transfer::{
        groups::{GROUP_LEN, GroupSteps, PARENT_LEN, Step, group_count, leaf_value, outboard_len, parent_value},
        layout::Layout,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
};

/// What a peer does with one request on its stream.
pub type Answer = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// A peer on a port of 127.0.0.1. It is gone when dropped.
pub struct Peer {
    secret: NodeSecret,
    addr: SocketAddr,
    _runtime: Runtime,
}

impl Peer {
    /// Starts a peer that answers each request by `answer`.
    pub fn start<F>(key: u8, answer: F) -> Result<Self>
    where
        F: Fn(Request, SessionStream) -> Answer + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Self::start_with(key, move |session, streams| Box::pin(serve(session, streams, answer.clone())))
    }

    /// Starts a peer that has no place for any session, and says so.
    pub fn start_busy(key: u8) -> Result<Self> {
        Self::start_with(key, |session, _streams| {
            Box::pin(async move {
                session.close_with(Goodbye::Busy);
                session.closed().await;
                Ok(())
            })
        })
    }

    fn start_with<F>(key: u8, on_session: F) -> Result<Self>
    where
        F: Fn(Session, InboundStreams) -> Answer + Send + Sync + 'static,
    {
        let secret = NodeSecret::from_bytes(&[key; 32]);
        let tls = SessionTls::new(&secret)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let addr = listener.local_addr()?;
        let policy = AddressPolicy::for_listeners(&[addr])?;
        let on_session = Arc::new(on_session);
        runtime.spawn(async move {
            while let Ok((stream, remote)) = listener.accept().await {
                let report = PathReport::accepted(remote, &policy);
                let (tls, on_session) = (tls.clone(), on_session.clone());
                tokio::spawn(async move {
                    // Whoever wants something else than a session, such as the DHT, fails here.
                    if let Ok((session, streams)) = Session::accept(Path { stream: stream.into(), report }, &tls).await
                    {
                        drop(on_session(session, streams).await);
                    }
                });
            }
        });
        Ok(Self { secret, addr, _runtime: runtime })
    }

    /// Its key.
    pub fn node(&self) -> NodeKey {
        self.secret.public()
    }

    /// Where it is, as a hint.
    pub fn hint(&self) -> String {
        format!("via=/ip4/127.0.0.1/tcp/{}", self.addr.port())
    }

    /// The address of a name in its catalogue.
    pub fn address_of(&self, name: &str) -> String {
        format!("keyferry:{}/{name}?{}", self.node(), self.hint())
    }

    /// The address of content that it has, or pretends to have.
    pub fn address_of_content(&self, hash: ContentHash) -> String {
        format!("keyferry:{}/{hash}?{}", self.node(), self.hint())
    }
}

async fn serve<F>(_session: Session, mut streams: InboundStreams, answer: Arc<F>) -> Result<()>
where
    F: Fn(Request, SessionStream) -> Answer + Send + Sync + 'static,
{
    while let Some(mut stream) = streams.next().await {
        let answer = answer.clone();
        tokio::spawn(async move {
            match read_message::<Request>(&mut stream).await {
                Ok(Request::Control(_)) => drop(control(stream).await),
                Ok(request) => drop(answer(request, stream).await),
                Err(_) => {}
            }
        });
    }
    Ok(())
}

/// Says hello and answers pings for as long as the session lives.
async fn control(mut stream: SessionStream) -> Result<()> {
    let hello = Hello { version: VERSION, features: 0, agent: "a test".to_owned() };
    stream.write_all(&ControlMessage::Hello(hello).to_frame()).await?;
    loop {
        if let ControlMessage::Ping(number) = read_message(&mut stream).await? {
            stream.write_all(&ControlMessage::Pong(number).to_frame()).await?;
        }
    }
}

/// Reads one frame and the message in it.
pub async fn read_message<M: Message>(stream: &mut SessionStream) -> Result<M> {
    let mut decoder = FrameDecoder::new(M::LIMIT);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let wanted = decoder.wants().min(buffer.len());
        let len = stream.read(&mut buffer[..wanted]).await?;
        ensure!(len > 0, "the stream has ended");
        if let Some(body) = decoder.accept(&mut &buffer[..len])? {
            return Ok(M::decode(&body)?);
        }
    }
}

/// Blobs, and how they are sent by a peer that is honest: the bed of every lie.
#[derive(Debug, Default)]
pub struct Blobs(HashMap<ContentHash, Vec<u8>>);

impl Blobs {
    /// Adds a blob.
    pub fn add(&mut self, data: Vec<u8>) -> ContentHash {
        let hash = ContentHash::of(&data);
        self.0.insert(hash, data);
        hash
    }

    /// The whole answer to a request for content: the header, and every item that is wanted.
    pub fn reply(&self, request: &ContentRequest, format: ContentFormat) -> Result<Vec<u8>> {
        let root = self.0.get(&request.root).context("no such root")?;
        let size = root.len() as u64;
        // A manifest that does not decode has no layout but its own.
        let layout = match Manifest::decode(root) {
            Ok(manifest) if format == ContentFormat::Collection => Layout::collection(request.root, size, &manifest)?,
            _ => Layout::blob(request.root, size)?,
        };
        let mut reply = header(format, size);
        for (_, item, groups) in layout.select(&request.ranges) {
            let data = self.0.get(&item.hash).context("no such item")?;
            let outboard = outboard(data);
            reply.push(0);
            for step in GroupSteps::new(item.size, &groups)? {
                reply.extend_from_slice(match step {
                    Step::Parent { outboard_offset } => &outboard[outboard_offset as usize..][..PARENT_LEN],
                    Step::Leaf { offset, len } => &data[offset as usize..][..len],
                });
            }
        }
        Ok(reply)
    }
}

/// The frame in front of content.
pub fn header(format: ContentFormat, size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Not by `to_frame` of a checked message: the size may be a lie.
    encode_frame(&ContentReply::Header(ContentHeader { format, size }).encode(), &mut bytes);
    bytes
}

/// The answer to a request for a name, signed by `secret`.
pub fn resolved(secret: &NodeSecret, name: &str, hash: ContentHash, format: ContentFormat, size: u64) -> Vec<u8> {
    let name = name.parse().expect("a test gives names that are allowed");
    let entry = CatalogueEntry { name, hash, format, size, files: 1, attributes: None };
    ResolveReply::Found(SignedEntry::sign(&entry, secret)).to_frame()
}

fn outboard(data: &[u8]) -> Vec<u8> {
    let mut outboard = vec![0; outboard_len(data.len() as u64) as usize];
    if !data.is_empty() {
        fill(data, &mut outboard, 0, group_count(data.len() as u64), 0, true);
    }
    outboard
}

/// Writes the parents of the groups `first..end` in pre-order, the first of them at `outboard[at]`; gives their value.
fn fill(data: &[u8], outboard: &mut [u8], first: u64, end: u64, at: usize, is_root: bool) -> [u8; 32] {
    let count = end - first;
    if count == 1 {
        let start = first as usize * GROUP_LEN;
        return leaf_value(start as u64, &data[start..data.len().min(start + GROUP_LEN)], is_root);
    }
    // The left subtree has the greatest power of two that leaves something to the right.
    let left = 1 << (63 - (count - 1).leading_zeros());
    let left_value = fill(data, outboard, first, first + left, at + PARENT_LEN, false);
    let right_value = fill(data, outboard, first + left, end, at + left as usize * PARENT_LEN, false);
    outboard[at..at + 32].copy_from_slice(&left_value);
    outboard[at + 32..at + PARENT_LEN].copy_from_slice(&right_value);
    parent_value(&left_value, &right_value, is_root)
}
