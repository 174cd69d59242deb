//! A file that some node shares as a stream of bytes, verified as it comes.
//!
//! What it is not: how it is fetched (`content::transfer::reading`).

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use keyferry_proto::{
    address::Address,
    hash::{ContentFormat, ContentHash},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt as _, ReadBuf},
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, Get, Node,
    api::{Event, Wait},
    events::{Events, tell},
    remote::{FoundProviders, Resolved},
};
use crate::content::transfer::{
    FetchError,
    fetch::FetchProgress,
    reading::{FilePiece, PIECES_AHEAD, Reading, WantedFile},
};

/// The largest content that [`Get::bytes`] takes into memory, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// How much of a file goes to whoever listens at once, in bytes.
const STREAMED_TOGETHER: usize = 64 * 1024;

impl Get<'_> {
    /// Fetches a small file into memory, with nothing written to disk. Dropping the future stops it.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] beyond [`MAX_BYTES`]: read that by [`Get::reader`]. [`Error::IsAFolder`], or whatever
    /// ended the fetch.
    pub async fn bytes(self) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader().await?;
        if reader.size > MAX_BYTES {
            return Err(Error::TooLarge { got: reader.size, limit: MAX_BYTES });
        }
        let mut bytes = Vec::with_capacity(reader.size as usize);
        reader.read_to_end(&mut bytes).await.map_err(why_no_more)?;
        Ok(bytes)
    }

    /// Opens a file for reading from beginning to end, with nothing written to disk. It comes from one provider at a
    /// time; if that fails, another one goes on.
    ///
    /// # Errors
    ///
    /// If no provider can be reached or has it, or it is a folder. What happens later, reading tells: an error whose
    /// inner error is an [`error::FetchError`](crate::error::FetchError).
    pub async fn reader(self) -> Result<ContentReader, Error> {
        // Nobody listens to events here.
        let (events, _) = mpsc::channel(1);
        self.node.open_reader(&self.address, self.wait, &events).await
    }
}

impl Node {
    /// Streams a file to whoever listens at a socket of this machine, and tells that as the result.
    pub(super) async fn stream_to(
        &self,
        address: &Address,
        outlet: &Path,
        wait: Wait,
        events: &Events,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let failed = |source| Error::Path { path: outlet.to_owned(), source };
        let mut listener = UnixStream::connect(outlet).await.map_err(failed)?;
        let streaming = async {
            let mut reader = self.open_reader(address, wait, events).await?;
            let mut buffer = BytesMut::with_capacity(STREAMED_TOGETHER);
            while reader.read_buf(&mut buffer).await.map_err(why_no_more)? > 0 {
                listener.write_all_buf(&mut buffer).await.map_err(|_| Error::NobodyReads)?;
            }
            tell(events, Event::Streamed { hash: reader.hash, size: reader.size }).await;
            Ok(())
        };
        cancel.run_until_cancelled(streaming).await.unwrap_or(Err(Error::Interrupted))
    }

    async fn open_reader(&self, address: &Address, wait: Wait, events: &Events) -> Result<ContentReader, Error> {
        let is_a_folder = || Error::IsAFolder { address: address.clone() };
        let online = self.online()?;
        let (root, file, session) = match address.path().cloned() {
            Some(path) => {
                let (root, manifest) = self.list_of_files(address, wait, events).await?;
                let file = self.quick(move |_| WantedFile::in_folder(root, manifest, &path)).await;
                let file = file.map_err(|error| match error {
                    Error::Fetch(FetchError::Folder) => is_a_folder(),
                    error => error,
                })?;
                (root, file, None)
            }
            None => {
                let Resolved { hash, format, session, .. } = self.resolve(address, wait, events).await?;
                if format == Some(ContentFormat::Collection) {
                    return Err(is_a_folder());
                }
                (hash, WantedFile::Root { hash, format }, session)
            }
        };
        let hash = file.hash();
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let (progress, told) = watch::channel(FetchProgress::default());
        let reading = Reading::new(file, sender, progress);
        let here = self.quick(move |store| store.blob(&hash)).await?;
        let mut task = match here {
            Some(blob) => tokio::spawn(reading.read_here(blob)),
            None => {
                let sought = self.sought(address, root, session);
                let found = self.find_providers(&online.finder, sought, wait, told, events).await;
                let FoundProviders { finding, providers } = found;
                tokio::spawn(async move { tokio::join!(reading.read_from_all(providers), finding).0 })
            }
        };
        match pieces.recv().await {
            Some(FilePiece::Size(size)) => {
                Ok(ContentReader { hash, size, left: size, bytes: Bytes::new(), pieces, task: Some(task) })
            }
            Some(FilePiece::Bytes(_)) | None => match (&mut task).await? {
                Err(FetchError::Folder) => Err(is_a_folder()),
                Err(error) => Err(error.into()),
                // Without a size, the fetch cannot have succeeded.
                Ok(()) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            },
        }
    }
}

/// A file, open for reading. What comes from another node is verified before it is read; what this node has is read from its own
/// file, and is an error if that has changed since. Dropping it stops the fetch. Reads are cancel-safe.
#[derive(Debug)]
pub struct ContentReader {
    hash: ContentHash,
    size: u64,
    /// Bytes that have not come yet.
    left: u64,
    /// What has come, and is not read.
    bytes: Bytes,
    pieces: mpsc::Receiver<FilePiece>,
    /// What fetches; none once it has told how it ended.
    task: Option<JoinHandle<Result<(), FetchError>>>,
}

impl ContentReader {
    /// The size of the file, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What ended a reader.
fn why_no_more(error: io::Error) -> Error {
    match error.downcast::<FetchError>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

impl ContentReader {
    /// Why no more comes.
    fn poll_failure(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(task) = &mut self.task else { return Poll::Ready(io::ErrorKind::UnexpectedEof.into()) };
        let ended = std::task::ready!(Pin::new(task).poll(cx));
        self.task = None;
        Poll::Ready(match ended {
            Ok(Ok(())) => io::ErrorKind::UnexpectedEof.into(),
            Ok(Err(error)) => io::Error::other(error),
            Err(error) => io::Error::other(error),
        })
    }
}

impl AsyncRead for ContentReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.bytes.is_empty() && self.left > 0 {
            match std::task::ready!(self.pieces.poll_recv(cx)) {
                Some(FilePiece::Bytes(bytes)) => {
                    self.left = self.left.saturating_sub(bytes.len() as u64);
                    self.bytes = bytes;
                }
                Some(FilePiece::Size(_)) => {}
                None => return self.poll_failure(cx).map(Err),
            }
        }
        let len = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..len]);
        self.bytes.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl Drop for ContentReader {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
