//! One request: it is sent, and its answer read, verified group by group, and written to its place.
//!
//! The answer is received on a blocking thread: the session's task decrypts while this one hashes and writes. What it is
//! not: a decision about what to do when it fails; it says whose fault it was, and the fetch decides.

use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use keyferry_proto::{
    collection::MAX_MANIFEST_LEN,
    hash::{ContentFormat, ContentHash},
    message::{ContentHeader, ContentReply, ContentRequest, ItemStatus, Message, Request},
    transfer::{
        groups::{Expect, GroupDecoder, GroupError, PARENT_LEN, Verified},
        layout::Item,
        units::UnitRanges,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use super::{
    FetchError, Lie, ProviderError,
    context::{FetchContext, Job},
    plan::FetchPlan,
    sink::{Batch, REPORT_EVERY, RequestProgress, UNIT, Writer},
};
use crate::net::session::{Session, SessionStream};

/// Small frames and parents are read through a buffer of this size; chunk groups go past it.
const READ_BUFFER_LEN: usize = 16 * 1024;

/// One request, as the receiving side sees it.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    pub(super) ranges: UnitRanges,
    /// Units from here on are somebody else's; it shrinks while the request runs.
    pub(super) end_unit: Arc<AtomicU64>,
    pub(super) cancel: CancellationToken,
}

/// Why a request ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The peer's or the connection's fault.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// This machine's fault.
    #[error(transparent)]
    Local(#[from] FetchError),
}

impl ReceiveError {
    /// Whether a request ended for no fault of anybody's but the path's, or because it was told to.
    pub(super) fn is_interruption(&self) -> bool {
        matches!(self, Self::Provider(ProviderError::Connection(_)) | Self::Local(FetchError::Interrupted))
    }
}

impl From<Lie> for ReceiveError {
    fn from(lie: Lie) -> Self {
        Self::Provider(lie.into())
    }
}

impl From<GroupError> for ReceiveError {
    fn from(error: GroupError) -> Self {
        Lie::from(error).into()
    }
}

/// Asks for content on a stream of its own.
pub(super) async fn ask(session: &Session, request: ContentRequest) -> Result<SessionStream, ProviderError> {
    let lost = |error| ProviderError::Connection(io::Error::other(error));
    let mut stream = session.open().await.map_err(lost)?;
    stream.write_all(&Request::Content(request).to_frame()).await.map_err(ProviderError::Connection)?;
    Ok(stream)
}

/// Receives the answer to one content request. `report` takes progress; it blocks while the fetch is busy.
pub(super) fn receive(
    stream: SessionStream,
    runtime: Handle,
    context: &FetchContext,
    assignment: &Assignment,
    report: &dyn Fn(RequestProgress),
) -> Result<(), ReceiveError> {
    let reader = StreamReader { stream, runtime, cancel: assignment.cancel.clone() };
    let mut answer =
        IncomingAnswer { reader: BufReader::with_capacity(READ_BUFFER_LEN, reader), context, assignment, report };
    let (format, size) = match answer.read_header()? {
        ContentReply::Header(ContentHeader { format, size }) => (format, size),
        ContentReply::Refused(refusal) => return Err(ProviderError::Refused(refusal).into()),
    };
    if let Some(signed) = context.job.format.filter(|signed| *signed != format) {
        return Err(Lie::Format { got: format, signed }.into());
    }
    let (plan, first_item) = match context.plan.get().cloned() {
        Some(plan) => (agreeing(plan, format, size)?, 0),
        None => match answer.make_plan(format, size)? {
            Some(planned) => planned,
            None => return Ok(()),
        },
    };
    answer.receive_items(&plan, first_item)
}

/// The plan, if the provider describes the content in the same way.
fn agreeing(plan: Arc<FetchPlan>, format: ContentFormat, size: u64) -> Result<Arc<FetchPlan>, ReceiveError> {
    match plan.agrees_with(format, size) {
        true => Ok(plan),
        false => Err(ProviderError::Disagrees { format, size }.into()),
    }
}

struct IncomingAnswer<'a, R> {
    reader: BufReader<R>,
    context: &'a FetchContext,
    assignment: &'a Assignment,
    report: &'a dyn Fn(RequestProgress),
}

impl<R: Read> IncomingAnswer<'_, R> {
    fn read_header(&mut self) -> Result<ContentReply, ReceiveError> {
        let mut len = [0; 4];
        self.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > ContentReply::LIMIT {
            return Err(Lie::LongHeader { got: len, limit: ContentReply::LIMIT }.into());
        }
        let mut body = vec![0; len];
        self.read_exact(&mut body)?;
        Ok(ContentReply::decode(&body).map_err(Lie::from)?)
    }

    /// Makes the plan from a first answer, and says from which item on this answer is still wanted.
    fn make_plan(&mut self, format: ContentFormat, size: u64) -> Result<Option<(Arc<FetchPlan>, usize)>, ReceiveError> {
        let Job { store, target, root, attributes, part, .. } = &self.context.job;
        let (manifest, next_item) = match format {
            ContentFormat::Blob => (None, 0),
            ContentFormat::Collection => (Some(self.receive_manifest(*root, size)?), 1),
        };
        let _planning = self.context.planning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = self.context.plan.get().cloned() {
            return Ok(Some((agreeing(plan, format, size)?, next_item)));
        }
        (self.report)(RequestProgress::Planning);
        let plan = match (manifest, part) {
            (None, Some(path)) => Err(FetchError::NotInFolder { path: path.to_string() }),
            (None, None) => FetchPlan::blob(store.clone(), target.clone(), *root, size, *attributes),
            (Some(bytes), _) => FetchPlan::collection(store.clone(), target.clone(), *root, bytes, part.as_ref()),
        };
        let plan = plan.map_err(|error| match error {
            // Only this provider says that it is so.
            FetchError::Layout(error) => Lie::Layout(error).into(),
            FetchError::HostileManifest(error) if self.context.job.format.is_none() => Lie::Manifest(error).into(),
            other => ReceiveError::Local(other),
        })?;
        let have = plan.take_stock(&self.assignment.cancel)?;
        let fresh = have.total() == if next_item == 1 { plan.layout.items()[0].units } else { 0 };
        let plan = Arc::clone(self.context.plan.get_or_init(|| Arc::new(plan)));
        (self.report)(RequestProgress::Planned { have });
        // If some is here already, a new request for the rest alone saves its transfer.
        Ok(fresh.then_some((plan, next_item)))
    }

    fn receive_items(&mut self, plan: &FetchPlan, first_item: usize) -> Result<(), ReceiveError> {
        let mut small = Batch::new(self.report);
        let received = self.receive_each(plan, first_item, &mut small);
        small.flush();
        received
    }

    fn receive_each(&mut self, plan: &FetchPlan, first_item: usize, small: &mut Batch<'_>) -> Result<(), ReceiveError> {
        for (index, item, wanted) in plan.layout.select(&self.assignment.ranges) {
            if index < first_item {
                continue;
            }
            if item.first_unit >= self.assignment.end_unit.load(Ordering::Relaxed) {
                break;
            }
            let may_have_marks = item.units > 1 && !plan.is_manifest(index);
            let status = self.read_status(may_have_marks)?;
            if let ItemStatus::Refused(refusal) = status {
                (self.report)(RequestProgress::ItemRefused { units: item.unit_range(), refusal });
                continue;
            }
            if plan.is_manifest(index) {
                // It was asked for before another provider's answer made the plan.
                self.receive_in_memory(GroupDecoder::new(item.hash, item.size, &wanted)?)?;
            } else if item.units == 1 {
                self.receive_small(plan, index, item)?;
                small.add(item.first_unit);
            } else {
                small.flush();
                let decoder = match status {
                    ItemStatus::Sparse => GroupDecoder::of_marked(item.hash, item.size, &wanted)?,
                    _ => GroupDecoder::new(item.hash, item.size, &wanted)?,
                };
                if !self.receive_large(plan, index, item, decoder)? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lists of files, and small files, have no marks.
    fn read_status(&mut self, may_have_marks: bool) -> Result<ItemStatus, ReceiveError> {
        let mut status = [0];
        self.read_exact(&mut status)?;
        let status = ItemStatus::from_byte(status[0]).map_err(Lie::from)?;
        Ok(if may_have_marks { status } else { status.without_marks().map_err(Lie::from)? })
    }

    fn receive_small(&mut self, plan: &FetchPlan, index: usize, item: &Item) -> Result<(), ReceiveError> {
        let mut bytes = vec![0; item.size as usize];
        self.read_exact(&mut bytes)?;
        if ContentHash::of(&bytes) != item.hash {
            return Err(Lie::Hash { expected: item.hash }.into());
        }
        self.first_byte();
        let file = plan.open_item(index)?;
        plan.write_item(index, &file.data, &bytes, 0)?;
        plan.cut_item(index, &file.data)?;
        Ok(())
    }

    /// Returns false if the rest of the answer is no longer wanted.
    fn receive_large(
        &mut self,
        plan: &FetchPlan,
        index: usize,
        item: &Item,
        decoder: GroupDecoder,
    ) -> Result<bool, ReceiveError> {
        let mut writer = Writer::open(plan, index, item, self.report)?;
        let received = self.receive_groups(item, decoder, &mut writer);
        // What was verified before a failure is kept.
        writer.flush()?;
        received
    }

    fn receive_groups(
        &mut self,
        item: &Item,
        mut decoder: GroupDecoder,
        writer: &mut Writer<'_>,
    ) -> Result<bool, ReceiveError> {
        let mut parent = [0; PARENT_LEN];
        while let Some(expected) = decoder.expects() {
            match expected {
                Expect::Parent => {
                    self.read_exact(&mut parent)?;
                    if let (Verified::Parent { outboard_offset }, Some(outboard)) =
                        (decoder.accept(&parent)?, &writer.file.outboard)
                    {
                        outboard.write_parent(outboard_offset, &parent).map_err(FetchError::from)?;
                    }
                }
                Expect::Mark => {
                    let mut mark = [0];
                    self.read_exact(&mut mark)?;
                    if let Verified::Zeros { offset, len } = decoder.accept(&mark)? {
                        if self.is_given_away(item, offset) {
                            return Ok(false);
                        }
                        self.first_byte();
                        writer.keep_zeros(offset, len)?;
                    }
                }
                Expect::Leaf { offset, len } => {
                    if self.is_given_away(item, offset) {
                        return Ok(false);
                    }
                    let place = writer.place(offset, len)?;
                    read_exact(&mut self.reader, self.context, place)?;
                    decoder.accept(place)?;
                    self.first_byte();
                    writer.keep(len)?;
                }
            }
        }
        Ok(true)
    }

    /// Whether somebody else fetches what is at this offset of an item.
    fn is_given_away(&self, item: &Item, offset: u64) -> bool {
        item.first_unit + offset / UNIT >= self.assignment.end_unit.load(Ordering::Relaxed)
    }

    fn receive_manifest(&mut self, root: ContentHash, size: u64) -> Result<Vec<u8>, ReceiveError> {
        if size > MAX_MANIFEST_LEN as u64 {
            return Err(Lie::LongManifest { got: size }.into());
        }
        match self.read_status(false)? {
            ItemStatus::Refused(refusal) => Err(ProviderError::Refused(refusal).into()),
            ItemStatus::Data | ItemStatus::Sparse => {
                self.receive_in_memory(GroupDecoder::new(root, size, &UnitRanges::all())?)
            }
        }
    }

    /// Receives groups of the manifest, whose size is bounded.
    fn receive_in_memory(&mut self, mut decoder: GroupDecoder) -> Result<Vec<u8>, ReceiveError> {
        let mut bytes = Vec::new();
        let mut parent = [0; PARENT_LEN];
        let mut reported = Instant::now();
        while let Some(expected) = decoder.expects() {
            match expected {
                Expect::Parent | Expect::Mark => {
                    let piece = &mut parent[..expected.len()];
                    self.read_exact(piece)?;
                    decoder.accept(piece)?;
                }
                Expect::Leaf { len, .. } => {
                    let start = bytes.len();
                    bytes.resize(start + len, 0);
                    read_exact(&mut self.reader, self.context, &mut bytes[start..])?;
                    decoder.accept(&bytes[start..])?;
                    self.first_byte();
                    if reported.elapsed() >= REPORT_EVERY {
                        (self.report)(RequestProgress::Alive);
                        reported = Instant::now();
                    }
                }
            }
        }
        Ok(bytes)
    }

    fn first_byte(&self) {
        self.context.arrivals.first_byte.get_or_init(Instant::now);
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), ReceiveError> {
        read_exact(&mut self.reader, self.context, bytes)
    }
}

fn read_exact(reader: &mut impl Read, context: &FetchContext, bytes: &mut [u8]) -> Result<(), ReceiveError> {
    reader.read_exact(bytes).map_err(ProviderError::Connection)?;
    context.arrivals.received_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    Ok(())
}

/// The blocking side of a session stream.
struct StreamReader {
    stream: SessionStream,
    runtime: Handle,
    cancel: CancellationToken,
}

impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { stream, runtime, cancel } = self;
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "no longer wanted")),
                read = stream.read(buffer) => read,
            }
        })
    }
}
