//! A file that some node shares as a stream of bytes, verified as it comes.
//!
//! What it is not: how it is fetched (`content::transfer::reading`).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use keyferry_proto::hash::ContentFormat;
use tokio::{
    io::{AsyncRead, AsyncReadExt, ReadBuf},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Error, Get, remote::FoundProviders};
use crate::content::transfer::{
    FetchError,
    fetch::FetchProgress,
    reading::{FilePiece, PIECES_AHEAD, Reading},
};

/// The largest content that [`Get::bytes`] takes into memory, in bytes.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;

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
        match reader.read_to_end(&mut bytes).await {
            Ok(_) => Ok(bytes),
            Err(error) => Err(match error.downcast::<FetchError>() {
                Ok(error) => error.into(),
                Err(error) => error.into(),
            }),
        }
    }

    /// Opens a file for reading from beginning to end, with nothing written to disk. It comes from one provider at a
    /// time; if that fails, another one goes on.
    ///
    /// # Errors
    ///
    /// If no provider can be reached or has it, or it is a folder. What happens later, reading tells: an error whose
    /// inner error is an [`error::FetchError`](crate::error::FetchError).
    pub async fn reader(self) -> Result<ContentReader, Error> {
        let Self { node, address, wait } = self;
        // Nobody listens to events here.
        let (events, _) = mpsc::channel(1);
        let online = node.online()?;
        let resolved = node.resolve(&address, wait, &events).await?;
        if resolved.format == Some(ContentFormat::Collection) {
            return Err(Error::IsAFolder { address });
        }
        let (sender, mut pieces) = mpsc::channel(PIECES_AHEAD);
        let (progress, told) = watch::channel(FetchProgress::default());
        let reading = Reading::new(resolved.hash, resolved.format, sender, progress);
        let here = node.quick(move |store| store.blob(&resolved.hash)).await?;
        let mut task = match here {
            Some(blob) => tokio::spawn(reading.read_here(blob)),
            None => {
                let sought = node.sought(&address, resolved.hash, resolved.session);
                let found = node.find_providers(&online.finder, sought, wait, told, &events).await;
                let FoundProviders { finding, providers } = found;
                tokio::spawn(async move { tokio::join!(reading.read_from_all(providers), finding).0 })
            }
        };
        match pieces.recv().await {
            Some(FilePiece::Size(size)) => {
                Ok(ContentReader { size, left: size, bytes: Bytes::new(), pieces, task: Some(task) })
            }
            Some(FilePiece::Bytes(_)) | None => match (&mut task).await? {
                Err(FetchError::Folder) => Err(Error::IsAFolder { address }),
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
