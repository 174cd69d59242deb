//! Reading one file in order and without a disk: from one provider at a time, verified group by group, and handed on at once.
//! When a provider fails, the next one goes on where it stopped.
//!
//! What it is not: the fetch of folders, or from several providers at once ([`super::fetch`]).

use std::time::Duration;

use bytes::Bytes;
use keyferry_proto::{
    collection::{EntryPath, Manifest},
    hash::{ContentFormat, ContentHash},
    message::{ContentHeader, ContentRequest, Refusal},
    transfer::{
        groups::{GROUP_LEN, GroupDecoder, Step, Verified, group_count},
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
    part::WantedPart,
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

/// Which file is read.
#[derive(Debug, Clone)]
pub enum WantedFile {
    /// The root itself.
    Root {
        /// Its hash.
        hash: ContentHash,
        /// What the publisher has signed that it is, if there is such a word.
        format: Option<ContentFormat>,
    },
    /// A file in a folder.
    InFolder {
        /// The root: the folder.
        root: ContentHash,
        /// The length of its list of files, in bytes.
        list_len: u64,
        /// Its hash.
        hash: ContentHash,
        /// Its size, in bytes.
        size: u64,
        /// The first of its units.
        first_unit: u64,
    },
}

/// The file that is read, and how far the reading has come.
#[derive(Debug)]
pub struct Reading {
    file: WantedFile,
    /// The size that was told to the reader.
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

impl WantedFile {
    /// The file at a path in a folder, by its list of files.
    ///
    /// # Errors
    /// If no file is there.
    pub fn in_folder(root: ContentHash, manifest: Manifest, path: &EntryPath) -> Result<Self, FetchError> {
        let list_len = manifest.encoded_len() as u64;
        let layout = Layout::collection(root, list_len, &manifest)?;
        let WantedPart::File(wanted) = WantedPart::of(manifest, Some(path))? else { return Err(FetchError::Folder) };
        // An empty file is no item, and nothing of it is asked for.
        let item = layout.items().iter().skip(1).find(|item| item.hash == wanted.hash);
        let first_unit = item.map_or(0, |item| item.first_unit);
        Ok(Self::InFolder { root, list_len, hash: wanted.hash, size: wanted.size, first_unit })
    }

    /// Its hash.
    pub fn hash(&self) -> ContentHash {
        match self {
            Self::Root { hash, .. } | Self::InFolder { hash, .. } => *hash,
        }
    }

    /// What is asked for it.
    fn root(&self) -> ContentHash {
        match self {
            Self::Root { hash, .. } => *hash,
            Self::InFolder { root, .. } => *root,
        }
    }
}

impl Reading {
    /// What is to be read, where its bytes go, and who is told how far it has come.
    pub fn new(file: WantedFile, pieces: mpsc::Sender<FilePiece>, progress: watch::Sender<FetchProgress>) -> Self {
        Self { file, size: None, offset: 0, pieces, progress }
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
        if self.file.hash() == ContentHash::EMPTY {
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
            let Some(session) = provider else { return Err(FetchError::in_vain(self.file.root(), last)) };
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
        let first = self.offset / GROUP_LEN as u64;
        let units = match &self.file {
            WantedFile::Root { .. } => first..OPEN_END,
            WantedFile::InFolder { size, first_unit, .. } => first_unit + first..first_unit + group_count(*size),
        };
        let request = ContentRequest::groups(self.file.root(), std::iter::once(units).collect());
        let mut stream = ask(session, request).await?;
        let (hash, size) = (self.file.hash(), self.header(&mut stream).await?);
        let layout = Layout::blob(hash, size).map_err(Lie::Layout)?;
        for (_, item, groups) in layout.select(&std::iter::once(first..OPEN_END).collect()) {
            let has_marks = read_status(&mut stream, item.units > 1).await?;
            if item.units == 1 {
                self.single_group(&mut stream, hash, size).await?;
                continue;
            }
            let decoder = match has_marks {
                false => GroupDecoder::new(hash, size, &groups),
                true => GroupDecoder::of_marked(hash, size, &groups),
            };
            self.groups(&mut stream, size, decoder.map_err(Lie::from)?).await?;
        }
        Ok(())
    }

    /// The size of the file, as the provider says, or the list of files that it is in.
    async fn header(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<u64, Stop> {
        let header = read_header(stream).await?;
        let ContentHeader { format, size } = header;
        let signed = match &self.file {
            WantedFile::InFolder { list_len, size: file_size, .. } => {
                return match (format, size == *list_len) {
                    (ContentFormat::Collection, true) => Ok(*file_size),
                    _ => Err(ProviderError::Disagrees { format, size }.into()),
                };
            }
            WantedFile::Root { format, .. } => *format,
        };
        match (format, signed, self.size) {
            (ContentFormat::Collection, None, _) => Err(ReceiveError::Local(FetchError::Folder).into()),
            (got, Some(signed), _) if got != signed => Err(Lie::Format { got, signed }.into()),
            (_, _, Some(known)) if known != size => Err(ProviderError::Disagrees { format, size }.into()),
            _ => Ok(size),
        }
    }

    async fn single_group(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        hash: ContentHash,
        size: u64,
    ) -> Result<(), Stop> {
        let mut bytes = vec![0; size as usize];
        read_exact(stream, &mut bytes).await?;
        match ContentHash::of(&bytes) == hash {
            true => self.hand_on(size, bytes).await,
            false => Err(Lie::Hash { expected: hash }.into()),
        }
    }

    async fn groups(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        size: u64,
        mut decoder: GroupDecoder,
    ) -> Result<(), Stop> {
        while let Some(expected) = decoder.expects() {
            let mut bytes = vec![0; expected.len()];
            read_exact(stream, &mut bytes).await?;
            match decoder.accept(&bytes).map_err(Lie::from)? {
                Verified::Leaf { .. } => self.hand_on(size, bytes).await?,
                Verified::Zeros { len, .. } => self.hand_on(size, vec![0; len]).await?,
                Verified::Parent { .. } | Verified::Marked => {}
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
