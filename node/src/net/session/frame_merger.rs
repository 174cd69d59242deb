//! Small frames of one stream that nobody has read yet are put together before the multiplexer keeps them: it would keep each for
//! itself, at seventy times its size.
//!
//! While a stream has bytes that wait for its reader, small frames that follow wait here, as bare bytes, until they are as many as are
//! worth a frame, or the reader has read all. Nothing waits that the reader could read, and no frame is ever held back for more to come.
//!
//! What it is not: the windows of streams; the peer gets credit for what was read, wherever it has waited.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// A data frame below this size may wait. What the multiplexer keeps beside the bytes is a sixtieth of one of this size.
const SMALL_FRAME: usize = 4096;
const HEADER_LEN: usize = 12;
/// The type of data frames.
const DATA: u8 = 0;
/// The type of the last frame of a connection.
const GO_AWAY: u8 = 3;

/// What of each stream the multiplexer has and nobody has read. Clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub(super) struct UnreadStreams(Arc<Mutex<UnreadBytes>>);

#[derive(Debug, Default)]
struct UnreadBytes {
    streams: HashMap<u32, UnreadStream>,
    /// Streams whose readers have read all that the multiplexer has.
    drained: Vec<u32>,
    /// Of whoever reads frames.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct UnreadStream {
    /// Bytes that the multiplexer has.
    unread: usize,
    /// Bytes that wait here, below [`SMALL_FRAME`].
    waiting: Vec<u8>,
}

/// Puts the small frames of a connection together as they are read.
pub(super) struct FrameMerger {
    streams: UnreadStreams,
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// What is to be read next.
    ready: Vec<u8>,
    ready_from: usize,
    /// The rest of a frame that is passed on as it is.
    passing: usize,
    /// The rest of a frame that waits, and its stream.
    keeping: usize,
    keeping_of: u32,
}

impl UnreadStreams {
    /// Begins to count for a stream that has a reader.
    pub(super) fn open(&self, id: u32) {
        self.lock().streams.insert(id, UnreadStream::default());
    }

    /// Nobody reads the stream any more.
    pub(super) fn close(&self, id: u32) {
        self.lock().streams.remove(&id);
    }

    /// Notes that the reader of a stream has read so many bytes.
    pub(super) fn read(&self, id: u32, len: usize) {
        let mut bytes = self.lock();
        let Some(stream) = bytes.streams.get_mut(&id) else { return };
        stream.unread = stream.unread.saturating_sub(len);
        if stream.unread == 0 && !stream.waiting.is_empty() {
            bytes.drained.push(id);
            if let Some(waker) = bytes.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether a frame that has come is to wait; else what has waited and goes before it.
    fn keeps(&self, header: &[u8; HEADER_LEN], into: &mut Vec<u8>) -> bool {
        let FrameHeader { kind, flags, id, len } = FrameHeader::parse(header);
        if kind == GO_AWAY {
            // Nothing is read after it.
            self.hand_on_all(into);
            return false;
        }
        if kind != DATA && flags == 0 {
            return false;
        }
        let mut bytes = self.lock();
        let Some(stream) = bytes.streams.get_mut(&id) else { return false };
        let has_backlog = stream.unread > 0 || !stream.waiting.is_empty();
        if flags == 0 && (len == 0 || len < SMALL_FRAME && has_backlog) {
            return true;
        }
        stream.hand_on(id, into);
        if kind == DATA {
            stream.unread += len;
        }
        false
    }

    /// Keeps bytes of a stream; what is worth a frame goes on.
    fn keep(&self, id: u32, data: &[u8], into: &mut Vec<u8>) {
        let mut bytes = self.lock();
        let Some(stream) = bytes.streams.get_mut(&id) else { return };
        stream.waiting.extend_from_slice(data);
        if stream.waiting.len() >= SMALL_FRAME || stream.unread == 0 {
            stream.hand_on(id, into);
        }
    }

    /// What waits of streams whose readers wait for it; else `cx` is woken when there is some.
    fn drained(&self, cx: &Context<'_>, into: &mut Vec<u8>) {
        let mut bytes = self.lock();
        for id in std::mem::take(&mut bytes.drained) {
            if let Some(stream) = bytes.streams.get_mut(&id).filter(|stream| stream.unread == 0) {
                stream.hand_on(id, into);
            }
        }
        if into.is_empty() && !bytes.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            bytes.waker = Some(cx.waker().clone());
        }
    }

    fn hand_on_all(&self, into: &mut Vec<u8>) {
        self.lock().streams.iter_mut().for_each(|(id, stream)| stream.hand_on(*id, into));
    }

    fn lock(&self) -> MutexGuard<'_, UnreadBytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnreadStream {
    /// Writes what waits as one frame.
    fn hand_on(&mut self, id: u32, into: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        self.unread += waiting.len();
        into.extend_from_slice(&FrameHeader { kind: DATA, flags: 0, id, len: waiting.len() }.header());
        into.extend_from_slice(&waiting);
    }
}

/// The fields of a frame's header.
struct FrameHeader {
    kind: u8,
    flags: u16,
    id: u32,
    len: usize,
}

impl FrameHeader {
    fn parse(header: &[u8; HEADER_LEN]) -> Self {
        let [_, kind, flag, flags, a, b, c, d, len @ ..] = *header;
        let (flags, id) = (u16::from_be_bytes([flag, flags]), u32::from_be_bytes([a, b, c, d]));
        Self { kind, flags, id, len: u32::from_be_bytes(len) as usize }
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let [flag, flags] = self.flags.to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        let [e, f, g, h] = u32::try_from(self.len).unwrap_or(u32::MAX).to_be_bytes();
        [0, self.kind, flag, flags, a, b, c, d, e, f, g, h]
    }
}

impl FrameMerger {
    pub(super) fn new(streams: UnreadStreams) -> Self {
        Self {
            streams,
            header: [0; HEADER_LEN],
            header_len: 0,
            ready: Vec::new(),
            ready_from: 0,
            passing: 0,
            keeping: 0,
            keeping_of: 0,
        }
    }

    /// Reads the next bytes of the connection `from`.
    pub(super) fn poll_read<T: AsyncRead + Unpin>(
        &mut self,
        from: &mut T,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let ready = &self.ready[self.ready_from..];
            if !ready.is_empty() {
                let len = ready.len().min(buf.remaining());
                buf.put_slice(&ready[..len]);
                self.ready_from += len;
                if self.ready_from == self.ready.len() {
                    self.ready.clear();
                    self.ready_from = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if self.passing > 0 {
                let wanted = self.passing.min(buf.remaining());
                let mut part = ReadBuf::new(buf.initialize_unfilled_to(wanted));
                ready!(Pin::new(from).poll_read(cx, &mut part))?;
                let len = part.filled().len();
                buf.advance(len);
                self.passing -= len;
                return Poll::Ready(Ok(()));
            }
            self.streams.drained(cx, &mut self.ready);
            if self.ready.is_empty() && !ready!(self.poll_take(from, cx))? {
                // What has come before the end is still to be read.
                self.streams.hand_on_all(&mut self.ready);
                if self.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Takes the next bytes of a header or of a frame that waits, and says whether there are any more.
    fn poll_take<T: AsyncRead + Unpin>(&mut self, from: &mut T, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [0; SMALL_FRAME];
        let wanted = if self.keeping > 0 { self.keeping } else { HEADER_LEN - self.header_len };
        let mut buf = ReadBuf::new(&mut bytes[..wanted]);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let taken = buf.filled();
        if taken.is_empty() {
            return Poll::Ready(Ok(false));
        }
        if self.keeping > 0 {
            self.keeping -= taken.len();
            self.streams.keep(self.keeping_of, taken, &mut self.ready);
            return Poll::Ready(Ok(true));
        }
        self.header[self.header_len..][..taken.len()].copy_from_slice(taken);
        self.header_len += taken.len();
        if self.header_len == HEADER_LEN {
            self.header_len = 0;
            let FrameHeader { kind, id, len, .. } = FrameHeader::parse(&self.header);
            if self.streams.keeps(&self.header, &mut self.ready) {
                (self.keeping, self.keeping_of) = (len, id);
            } else {
                self.ready.extend_from_slice(&self.header);
                self.passing = if kind == DATA { len } else { 0 };
            }
        }
        Poll::Ready(Ok(true))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        task::unconstrained,
    };

    use super::*;

    /// As much as a peer may send of a stream that nobody reads.
    const WINDOW: usize = 256 * 1024;
    const FIN: u16 = 4;

    fn frame(id: u32, flags: u16, data: &[u8]) -> Vec<u8> {
        [&FrameHeader { kind: DATA, flags, id, len: data.len() }.header()[..], data].concat()
    }

    struct MergedStream {
        inner: DuplexStream,
        merger: FrameMerger,
    }

    impl AsyncRead for MergedStream {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            this.merger.poll_read(&mut this.inner, cx, buf)
        }
    }

    /// The frames that can be read now, each with its flags, stream and bytes.
    fn read_now(merger: &mut MergedStream) -> Vec<(u16, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut header = [0; HEADER_LEN];
        while let Some(Ok(_)) = unconstrained(merger.read_exact(&mut header)).now_or_never() {
            let FrameHeader { kind, flags, id, len } = FrameHeader::parse(&header);
            let mut data = vec![0; if kind == DATA { len } else { 0 }];
            unconstrained(merger.read_exact(&mut data)).now_or_never().expect("a whole frame").unwrap();
            frames.push((flags, id, data));
        }
        frames
    }

    fn merger(ids: impl IntoIterator<Item = u32>) -> (MergedStream, UnreadStreams, DuplexStream) {
        let (inner, theirs) = duplex(usize::MAX / 2);
        let streams = UnreadStreams::default();
        ids.into_iter().for_each(|id| streams.open(id));
        (MergedStream { inner, merger: FrameMerger::new(streams.clone()) }, streams, theirs)
    }

    #[tokio::test]
    async fn a_window_of_frames_of_one_byte_on_each_of_24_streams_is_kept_in_few_frames() {
        let ids: Vec<u32> = (1..=24).collect();
        let (mut merger, _streams, mut peer) = merger(ids.clone());
        let mut frames = 0;
        let round: Vec<u8> = (0..64).flat_map(|_| ids.iter().flat_map(|id| frame(*id, 0, &[7]))).collect();
        let mut bytes = 0;
        for _ in 0..WINDOW / 64 {
            peer.write_all(&round).await.unwrap();
            for (_, _, data) in read_now(&mut merger) {
                (frames, bytes) = (frames + 1, bytes + data.len());
            }
        }
        let waiting = 24 * SMALL_FRAME;
        assert!((24 * WINDOW - waiting..=24 * WINDOW).contains(&bytes), "{bytes}");
        assert!(frames <= 24 * (WINDOW / SMALL_FRAME + 1), "{frames} frames are kept");
    }

    #[tokio::test]
    async fn who_has_read_all_gets_what_waits_at_once_and_an_end_comes_after_it() {
        let (mut merger, streams, mut peer) = merger([1, 2]);
        peer.write_all(&[frame(1, 0, b"a"), frame(1, 0, b"b"), frame(1, 0, b"c"), frame(2, 0, b"x")].concat())
            .await
            .unwrap();
        assert_eq!(read_now(&mut merger), [(0, 1, b"a".to_vec()), (0, 2, b"x".to_vec())]);
        streams.read(1, 1);
        assert_eq!(read_now(&mut merger), [(0, 1, b"bc".to_vec())]);
        peer.write_all(&[frame(2, 0, b"y"), frame(2, FIN, b"")].concat()).await.unwrap();
        assert_eq!(read_now(&mut merger), [(0, 2, b"y".to_vec()), (FIN, 2, Vec::new())]);
        peer.write_all(&frame(1, 0, b"d")).await.unwrap();
        let go_away = FrameHeader { kind: GO_AWAY, flags: 0, id: 0, len: 0 }.header();
        peer.write_all(&[&frame(1, 0, b"e"), &go_away[..], &frame(1, 0, b"f")].concat()).await.unwrap();
        assert_eq!(read_now(&mut merger), [(0, 1, b"de".to_vec()), (0, 0, Vec::new())], "before the peer's farewell");
        drop(peer);
        assert_eq!(read_now(&mut merger), [(0, 1, b"f".to_vec())], "before the end of the connection");
    }

    #[tokio::test]
    async fn whoever_reads_frames_is_woken_when_a_reader_has_read_all() {
        let (mut merger, streams, mut peer) = merger([1]);
        peer.write_all(&[frame(1, 0, b"a"), frame(1, 0, b"b")].concat()).await.unwrap();
        assert_eq!(read_now(&mut merger).len(), 1);
        let reads = tokio::spawn(async move {
            let mut bytes = [0; HEADER_LEN + 1];
            merger.read_exact(&mut bytes).await.unwrap();
            bytes[HEADER_LEN]
        });
        tokio::task::yield_now().await;
        streams.read(1, 1);
        assert_eq!(reads.await.unwrap(), b'b');
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send { id: u32, len: usize, is_last: bool },
        Read { id: u32 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let len = prop_oneof![0..4_usize, 0..200_usize, 4000..5000_usize];
        prop_oneof![
            3 => (1..4_u32, len, prop::bool::weighted(0.05))
                .prop_map(|(id, len, is_last)| Step::Send { id, len, is_last }),
            1 => (1..4_u32).prop_map(|id| Step::Read { id }),
        ]
    }

    proptest! {
        #[test]
        fn each_stream_keeps_its_bytes_and_their_order(steps in prop::collection::vec(step(), 0..100)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut merger, streams, mut peer) = merger(1..4);
                let (mut sent, mut got) = (HashMap::<u32, Vec<u8>>::new(), HashMap::<u32, Vec<u8>>::new());
                let (mut read, mut ends) = (HashMap::<u32, usize>::new(), HashMap::<u32, usize>::new());
                for (number, step) in steps.into_iter().enumerate() {
                    match step {
                        Step::Send { id, len, is_last } => {
                            let data: Vec<u8> = (0..len).map(|at| (at + number) as u8).collect();
                            peer.write_all(&frame(id, if is_last { FIN } else { 0 }, &data)).await.unwrap();
                            sent.entry(id).or_default().extend(data);
                        }
                        Step::Read { id } => {
                            let all = got.get(&id).map_or(0, Vec::len);
                            let before = read.insert(id, all).unwrap_or(0);
                            streams.read(id, all - before);
                        }
                    }
                    for (flags, id, data) in read_now(&mut merger) {
                        got.entry(id).or_default().extend(data);
                        if flags == FIN {
                            ends.insert(id, got[&id].len());
                            assert_eq!(got[&id].len(), sent[&id].len(), "an end came before what was sent before it");
                        }
                    }
                    for id in 1..4 {
                        let (sent, got) = (sent.get(&id).map_or(0, Vec::len), got.get(&id).map_or(0, Vec::len));
                        assert!(sent - got < SMALL_FRAME);
                        assert!(sent == got || read.get(&id).copied().unwrap_or(0) < got, "it waits for a reader that has read all");
                    }
                }
                drop(peer);
                for (_, id, data) in read_now(&mut merger) {
                    got.entry(id).or_default().extend(data);
                }
                sent.retain(|_, data| !data.is_empty());
                got.retain(|_, data| !data.is_empty());
                assert_eq!(got, sent);
            });
        }
    }
}
