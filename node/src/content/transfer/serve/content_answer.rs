//! Reading what is sent: an item after the other, on a blocking thread, a few pieces ahead of the network.
//!
//! What it is not: the decision whether it may be sent ([`super`]).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use keyferry_proto::{
    hash::{ContentFormat, ContentHash},
    message::{ContentHeader, ContentPart, ContentReply, ContentRequest, ItemStatus, Message, Refusal},
    transfer::{
        groups::outboard_len,
        layout::{Item, Layout},
        units::UnitRanges,
    },
};
use tokio::sync::mpsc;

use super::{
    descriptions::{Described, DescribedFolders},
    error::ServeError,
    serve_counters::ServeCounters,
    source_troubles::{SourceFault, SourceTrouble, SourceTroubles},
};
use crate::content::store::{Blob, BlobError, Store, StoreError};

/// Data is handed to the session in pieces of about this many bytes.
const PIECE_LEN: usize = 256 * 1024;

/// What answers are read from. All sessions share it.
#[derive(Debug)]
pub(super) struct ContentSource {
    store: Store,
    /// Folders that are being sent: their lists of files are large, and many peers may ask for the same one.
    folders: Mutex<DescribedFolders>,
    troubles: SourceTroubles,
    counters: ServeCounters,
}

/// The producing half of an answer to a content request.
pub(super) struct ContentAnswer {
    source: Arc<ContentSource>,
    pieces: mpsc::Sender<Vec<u8>>,
    returned: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
}

impl ContentAnswer {
    /// An answer whose pieces go to `pieces`; those that are empty again come back by `returned`.
    pub(super) fn new(
        source: Arc<ContentSource>,
        pieces: mpsc::Sender<Vec<u8>>,
        returned: mpsc::Receiver<Vec<u8>>,
    ) -> Self {
        Self { source, pieces, returned, piece: Vec::new() }
    }

    /// Produces all of it.
    pub(super) fn produce(mut self, request: &ContentRequest, format: ContentFormat) -> Result<(), ServeError> {
        let described = match self.source.describe(&request.root, format) {
            Ok(Some(described)) => described,
            Ok(None) => {
                self.source.counters.not_found.add_one();
                return self.refuse(Refusal::NotFound);
            }
            Err(ServeError::Store(error)) => {
                let refusal = self.source.note_trouble(request.root, &error);
                return self.refuse(refusal);
            }
            Err(error) => return Err(error),
        };
        let Described { format, size, layout } = &*described;
        self.put(&ContentReply::Header(ContentHeader { format: *format, size: *size }).to_frame());
        for (index, item, wanted) in layout.select(&request.ranges) {
            if request.part == ContentPart::Root && index > 0 {
                break;
            }
            match self.source.open(&request.root, item) {
                Ok(blob) => {
                    let is_list = index == 0 && *format == ContentFormat::Collection;
                    let may_have_marks = request.part == ContentPart::Groups && item.units > 1 && !is_list;
                    let has_marks = may_have_marks && blob.is_sparse();
                    let status = if has_marks { ItemStatus::Sparse } else { ItemStatus::Data };
                    self.put(&[status.to_byte()]);
                    let sent = match request.part {
                        ContentPart::Groups | ContentPart::Root => self.put_groups(&blob, &wanted, has_marks),
                        ContentPart::Parents => self.put_parents(&blob),
                    };
                    sent.inspect_err(|error| {
                        if let ServeError::Source(error) = error {
                            self.source.note_broken(request.root, item.hash, error);
                        }
                    })?;
                }
                Err(refusal) => self.put(&[ItemStatus::Refused(refusal).to_byte()]),
            }
        }
        self.flush()
    }

    fn put_groups(&mut self, blob: &Blob, groups: &UnitRanges, has_marks: bool) -> Result<(), ServeError> {
        let mut pieces = blob.pieces(groups)?;
        if has_marks {
            pieces = pieces.with_marks();
        }
        while pieces.append_next(&mut self.piece)?.is_some() {
            if self.piece.len() >= PIECE_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn put_parents(&mut self, blob: &Blob) -> Result<(), ServeError> {
        let mut offset = 0;
        while offset < outboard_len(blob.size()) {
            let start = self.piece.len();
            let len = (outboard_len(blob.size()) - offset).min(PIECE_LEN as u64);
            self.piece.resize(start + len as usize, 0);
            blob.read_parents(offset, &mut self.piece[start..])?;
            offset += len;
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
}

impl ContentSource {
    /// What is in a store.
    pub(super) fn of(store: Store) -> Self {
        let troubles = SourceTroubles::of(&store);
        Self { store, folders: Mutex::default(), troubles, counters: ServeCounters::default() }
    }

    /// What could not be sent.
    pub(super) fn troubles(&self) -> &SourceTroubles {
        &self.troubles
    }

    /// What was sent, and what could not be.
    pub(super) fn counters(&self) -> &ServeCounters {
        &self.counters
    }

    fn open(&self, root: &ContentHash, item: &Item) -> Result<Blob, Refusal> {
        if self.troubles.is_unreadable(&item.hash, Instant::now()) {
            return Err(Refusal::Unreadable);
        }
        match self.store.blob(&item.hash) {
            Ok(Some(blob)) if blob.size() == item.size => Ok(blob),
            Ok(_) => Err(Refusal::NotFound),
            Err(error) => Err(self.note_trouble(*root, &error)),
        }
    }

    fn describe(&self, root: &ContentHash, format: ContentFormat) -> Result<Option<Arc<Described>>, ServeError> {
        let size = match format {
            ContentFormat::Collection => return self.folder(root),
            ContentFormat::Blob if *root == ContentHash::EMPTY => 0,
            ContentFormat::Blob => match self.store.blob(root)? {
                Some(blob) => blob.size(),
                None => return Ok(None),
            },
        };
        Ok(Some(Arc::new(Described { format: ContentFormat::Blob, size, layout: Layout::blob(*root, size)? })))
    }

    /// The description of a folder, shared by all who are sent it now. One list of files is read at a time.
    fn folder(&self, root: &ContentHash) -> Result<Option<Arc<Described>>, ServeError> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(described) = folders.get(root, Instant::now()) {
            return Ok(Some(described));
        }
        let Some(manifest) = self.store.manifest(root)? else { return Ok(None) };
        let size = manifest.encoded_len() as u64;
        let layout = Layout::collection(*root, size, &manifest)?;
        let described = Arc::new(Described { format: ContentFormat::Collection, size, layout });
        folders.insert(*root, &described, Instant::now());
        Ok(Some(described))
    }

    /// Notes why a file cannot be sent, and says how to refuse it.
    fn note_trouble(&self, root: ContentHash, error: &StoreError) -> Refusal {
        self.counters.changed_sources.add_one();
        match SourceTrouble::of_store(root, error) {
            Some(trouble) => {
                let refusal = trouble.fault.refusal();
                self.troubles.note(trouble);
                refusal
            }
            None => {
                tracing::warn!(%error, "what is shared cannot be sent");
                Refusal::Unreadable
            }
        }
    }

    /// Notes why a blob could not be sent to its end.
    fn note_broken(&self, root: ContentHash, hash: ContentHash, error: &BlobError) {
        self.counters.changed_sources.add_one();
        let trouble = SourceTrouble::of_blob(root, error);
        if let SourceFault::Unreadable(_) = trouble.fault {
            self.troubles.add_unreadable(hash, Instant::now());
        }
        self.troubles.note(trouble);
    }
}
