//! Reading one file in order and without a disk: from one provider at a time, verified group by group, and handed on at once.
//! When a provider fails, the next one goes on where it stopped.
//!
//! What it is not: the fetch of folders, or from several providers at once ([`super::fetch`]).

use std::time::Duration;

use bytes::Bytes;
use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    message::{ContentHeader, ContentRequest, Refusal},
    transfer::{
        groups::{Expect, GROUP_LEN, GroupDecoder, Step},
        layout::Layout,
        schedule::{MAX_EMPTY_REQUESTS, RECHECK},
        units::{OPEN_END, UnitRanges},
    },
};
use tokio::{
    io::AsyncRead,
    sync::{mpsc, watch},
    time::sleep,
};

use super::{
    FetchError, InternalError, Lie, ProviderError,
    attempt::FetchProgress,
    context::FoundSources,
    describing::{read_exact, read_header, read_status},
    patience::Patience,
    receive::{ReceiveError, ask},
};
use crate::{content::store::Blob, net::session::Session};

/// Pieces that wait for the reader, of [`GROUP_LEN`] bytes at most each.
pub const PIECES_AHEAD: usize = 16;

/// What a reader is given: verified bytes in order, and what ended them if not the end of the file.
#[derive(Debug)]
pub enum FilePiece {
    /// The size of the file in bytes; before anything else, once the first bytes are verified.
    Size(u64),
    /// The next bytes.
    Bytes(Bytes),
}

/// The file that is read, and how far the reading has come.
#[derive(Debug)]
pub struct Reading {
    root: ContentHash,
    format: Option<ContentFormat>,
    /// Its size, once it is known: signed by the publisher, or proven by its first group.
    size: Option<u64>,
    /// Bytes that were handed on: whole groups, but for the last.
    offset: u64,
    pieces: mpsc::Sender<FilePiece>,
    progress: watch::Sender<FetchProgress>,
}

/// Why the reading ends.
enum Stop {
    /// The reader is gone.
    NobodyReads,
    /// What went wrong with this provider; another one may do.
    Provider(ReceiveError),
}

impl<E: Into<ReceiveError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Provider(error.into())
    }
}

impl Reading {
    /// What is to be read, where its bytes go, and who is told how far it has come.
    pub fn new(
        root: ContentHash,
        format: Option<ContentFormat>,
        pieces: mpsc::Sender<FilePiece>,
        progress: watch::Sender<FetchProgress>,
    ) -> Self {
        Self { root, format, size: None, offset: 0, pieces, progress }
    }

    /// Reads what this machine has, from its file.
    ///
    /// # Errors
    ///
    /// If the file has changed since it was shared, or cannot be read.
    pub async fn read_here(self, blob: Blob) -> Result<(), FetchError> {
        let read = tokio::task::spawn_blocking(move || -> Result<(), FetchError> {
            let Self { pieces, .. } = self;
            let mut handed_on = pieces.blocking_send(FilePiece::Size(blob.size())).is_ok();
            let mut read = blob.pieces(&UnitRanges::all())?;
            let mut buffer = Vec::new();
            while handed_on && let Some(step) = read.append_next(&mut buffer)? {
                let piece = std::mem::take(&mut buffer);
                if let Step::Leaf { .. } = step {
                    handed_on = pieces.blocking_send(FilePiece::Bytes(piece.into())).is_ok();
                }
            }
            Ok(())
        });
        read.await.map_err(InternalError::from)?
    }

    /// Reads from the providers that come, one at a time, until the file is whole or nobody reads any more. Without one, it waits for
    /// as long as `providers` is open.
    ///
    /// # Errors
    ///
    /// If none came, or the last one that came has failed and no other follows, or it refuses and no other follows soon.
    pub async fn read_from_all(mut self, mut providers: FoundSources) -> Result<(), FetchError> {
        if self.root == ContentHash::EMPTY {
            let _ = self.pieces.send(FilePiece::Size(0)).await;
            return Ok(());
        }
        let patience = Patience::default();
        let (mut left, mut last) = (Duration::MAX, None);
        loop {
            self.progress.send_modify(|progress| progress.is_stuck = true);
            let provider = tokio::select! {
                provider = providers.next_within(left) => provider,
                () = self.pieces.closed() => return Ok(()),
            };
            let Some(session) = provider else { return Err(FetchError::in_vain(self.root, last)) };
            self.progress.send_modify(|progress| progress.is_stuck = false);
            match self.read_from_one(&session).await {
                Ok(()) | Err(Stop::NobodyReads) => return Ok(()),
                Err(Stop::Provider(ReceiveError::Local(error))) => return Err(error),
                Err(Stop::Provider(ReceiveError::Provider(error))) => {
                    tracing::debug!(%error, offset = self.offset, "a provider does not go on; another may");
                    left = match &error {
                        ProviderError::Refused(_) => patience.when_refused,
                        _ => Duration::MAX,
                    };
                    last = Some(error);
                }
            }
        }
    }

    /// Reads from a provider, which is asked again if it has no place just now.
    async fn read_from_one(&mut self, session: &Session) -> Result<(), Stop> {
        let mut turned_away = 0;
        loop {
            let before = self.offset;
            let ended = self.read_from(session).await;
            if !matches!(&ended, Err(Stop::Provider(ReceiveError::Provider(ProviderError::Refused(Refusal::Busy))))) {
                return ended;
            }
            turned_away = if self.offset > before { 1 } else { turned_away + 1 };
            if turned_away == MAX_EMPTY_REQUESTS {
                return ended;
            }
            tokio::select! {
                () = sleep(RECHECK) => {}
                () = self.pieces.closed() => return Err(Stop::NobodyReads),
            }
        }
    }

    async fn read_from(&mut self, session: &Session) -> Result<(), Stop> {
        let wanted: UnitRanges = std::iter::once(self.offset / GROUP_LEN as u64..OPEN_END).collect();
        let mut stream = ask(session, ContentRequest::groups(self.root, wanted.clone())).await?;
        let size = self.header(&mut stream).await?;
        let layout = Layout::blob(self.root, size).map_err(Lie::Layout)?;
        for (_, item, groups) in layout.select(&wanted) {
            read_status(&mut stream).await?;
            match item.units {
                1 => self.single_group(&mut stream, size).await?,
                _ => self.groups(&mut stream, size, &groups).await?,
            }
        }
        Ok(())
    }

    /// The size of the file, as the provider says.
    async fn header(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<u64, Stop> {
        let header = read_header(stream).await?;
        let ContentHeader { format, size } = header;
        match (format, self.format, self.size) {
            (ContentFormat::Collection, None, _) => Err(ReceiveError::Local(FetchError::Folder).into()),
            (got, Some(signed), _) if got != signed => Err(Lie::Format { got, signed }.into()),
            (_, _, Some(known)) if known != size => Err(ProviderError::Disagrees { format, size }.into()),
            _ => Ok(size),
        }
    }

    async fn single_group(&mut self, stream: &mut (impl AsyncRead + Unpin), size: u64) -> Result<(), Stop> {
        let mut bytes = vec![0; size as usize];
        read_exact(stream, &mut bytes).await?;
        match ContentHash::of(&bytes) == self.root {
            true => self.hand_on(size, bytes).await,
            false => Err(Lie::Hash { expected: self.root }.into()),
        }
    }

    async fn groups(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        size: u64,
        groups: &UnitRanges,
    ) -> Result<(), Stop> {
        let mut decoder = GroupDecoder::new(self.root, size, groups).map_err(Lie::from)?;
        while let Some(expected) = decoder.expects() {
            let mut bytes = vec![0; expected.len()];
            read_exact(stream, &mut bytes).await?;
            decoder.accept(&bytes).map_err(Lie::from)?;
            if let Expect::Leaf { .. } = expected {
                self.hand_on(size, bytes).await?;
            }
        }
        Ok(())
    }

    async fn hand_on(&mut self, size: u64, bytes: Vec<u8>) -> Result<(), Stop> {
        if self.size.replace(size).is_none() {
            self.pieces.send(FilePiece::Size(size)).await.map_err(|_| Stop::NobodyReads)?;
        }
        self.offset += bytes.len() as u64;
        self.progress.send_modify(|progress| progress.done_bytes = self.offset);
        self.pieces.send(FilePiece::Bytes(bytes.into())).await.map_err(|_| Stop::NobodyReads)
    }
}
