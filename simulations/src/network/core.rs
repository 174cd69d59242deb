//! The core of the lab's network: routers between all attachments, in this process, on one TUN device for each attachment.
//!
//! ```text
//!  NAT ─ wan (TUN) ─ edge router ─ backbone ─ edge router ─ (TUN) wan ─ NAT or host
//! ```
//!
//! Packets go by destination, over [`HOPS`] routers between any two attachments. Each router counts the hop limit down and answers
//! when it runs out; the way takes time, and may lose packets and more (`way`), for each two lines differently (`ways`). Segments stay
//! together (GSO): a device gives and takes packets of up to 64 KiB with their virtio header, and the core hands both on as they are, so
//! it carries more than the hosts behind it make. Only on a rough way each goes by itself: whoever attaches a line has it segmented
//! before (`Network`).
//!
//! What it is not: a NAT or a firewall; those are the kernel's, in the namespaces (`rules`).

mod capture;
mod crossings;
mod delay;
mod line_id;
mod packet;
mod port;
mod way;
mod ways;

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tun_rs::{AsyncDevice, SyncDevice, VIRTIO_NET_HDR_LEN};

use self::{
    capture::Capture,
    crossings::Crossings,
    delay::DelayLine,
    packet::{Crossing, cross, endpoints, unreachable},
    port::Port,
    ways::Ways,
};
pub(crate) use line_id::{Carried, LineId};
pub(crate) use packet::Router;
pub(crate) use way::{Rate, Way};

/// Routers between any two attachments: the sender's edge, the backbone, the receiver's edge.
pub(crate) const HOPS: usize = 3;

/// The longest packet of IP, with its virtio header.
const LONGEST: usize = VIRTIO_NET_HDR_LEN + 65_535;

/// One line into the core.
pub(crate) struct Attachment {
    /// The end of the line in this process.
    pub(crate) device: SyncDevice,
    /// What is reached over it: networks with their prefix lengths.
    pub(crate) networks: Vec<(IpAddr, u8)>,
    /// The router at its end.
    pub(crate) edge: Router,
    /// What it carries into the core, where that is less than the usual way says.
    pub(crate) up: Option<Rate>,
    /// What it carries out of the core, where that is less than the usual way says.
    pub(crate) down: Option<Rate>,
}

/// What the core has done.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Handed on.
    pub(crate) passed: AtomicU64,
    /// Out of hops; answered where allowed.
    pub(crate) expired: AtomicU64,
    /// No attachment has the destination.
    pub(crate) unroutable: AtomicU64,
    /// Lost on purpose.
    pub(crate) lost: AtomicU64,
    /// Not let through between lines that are cut off from each other.
    pub(crate) cut: AtomicU64,
    /// Dropped because they would have waited too long for a slow line.
    pub(crate) queued_too_long: AtomicU64,
    /// Dropped because a queue was full.
    pub(crate) overflown: AtomicU64,
}

/// A running core. Ends, and closes its devices, when dropped.
pub(crate) struct Core {
    runtime: tokio::runtime::Handle,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    began: Instant,
    ways: RwLock<Ways>,
    /// Counted only for who asks.
    crossings: OnceLock<Mutex<Crossings>>,
    backbone: Router,
    ports: RwLock<Vec<Arc<Port>>>,
    delay: DelayLine,
    counters: Counters,
}

impl Core {
    /// Starts a core with nothing attached. A way is that between any two lines which have none of their own.
    pub(crate) fn start(way: Way, backbone: Router) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            began: Instant::now(),
            ways: RwLock::new(Ways::all(way)),
            crossings: OnceLock::new(),
            backbone,
            ports: RwLock::default(),
            delay: DelayLine::default(),
            counters: Counters::default(),
        });
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let carrier = thread::Builder::new().name("lab-core".to_owned()).spawn(move || {
            // Ends with a message or, if the core goes without one, with the channel.
            let _ = runtime.block_on(stopped);
        })?;
        let delivered = shared.clone();
        let deliverer = thread::Builder::new().name("lab-delay".to_owned()).spawn(move || {
            while let Some((target, packet)) = delivered.delay.next() {
                delivered.count_sent(target.send(&packet));
            }
        })?;
        Ok(Self { runtime: handle, shared, stop: Some(stop), threads: vec![carrier, deliverer] })
    }

    /// Attaches a line. It goes away with its device, when the namespace that holds it is removed.
    pub(crate) fn attach(&self, attachment: Attachment) -> Result<LineId> {
        let _context = self.runtime.enter();
        let Attachment { device, networks, edge, up, down } = attachment;
        let device = AsyncDevice::new(device).context("cannot watch a TUN device")?;
        let port = Arc::new(Port::new(device, networks, edge, up, down));
        let line = port.id;
        if let Ok(mut ports) = self.shared.ports.write() {
            ports.push(port.clone());
        }
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            carry(&shared, &port).await;
            if let Ok(mut ports) = shared.ports.write() {
                ports.retain(|other| !Arc::ptr_eq(other, &port));
            }
        });
        Ok(line)
    }

    /// Has packets between two lines, or any two that have no way of their own, go by this way from now on.
    pub(crate) fn set_way(&self, between: Option<(LineId, LineId)>, way: Way) {
        self.shared.ways.write().unwrap_or_else(PoisonError::into_inner).set(between, way);
    }

    /// Lets nothing pass between two lines any more.
    pub(crate) fn cut(&self, a: LineId, b: LineId) {
        self.shared.ways.write().unwrap_or_else(PoisonError::into_inner).cut(a, b);
    }

    /// Undoes [`Self::cut`].
    pub(crate) fn heal(&self, a: LineId, b: LineId) {
        self.shared.ways.write().unwrap_or_else(PoisonError::into_inner).heal(a, b);
    }

    /// Changes what a line carries.
    pub(crate) fn set_rates(&self, line: LineId, up: Option<Rate>, down: Option<Rate>) {
        if let Some(port) = self.port(line) {
            port.set_rates(up, down);
        }
    }

    /// Writes the packets of a line to a file, those that come to it and those that reach its end.
    pub(crate) fn capture(&self, line: LineId, file: &Path) -> Result<()> {
        let capture = Capture::create(file).with_context(|| file.display().to_string())?;
        if let Some(port) = self.port(line) {
            port.capture_to(capture);
        }
        Ok(())
    }

    /// What a line has carried so far; nothing if it is gone.
    pub(crate) fn carried(&self, line: LineId) -> Carried {
        self.port(line).map(|port| port.carried()).unwrap_or_default()
    }

    /// Begins to count which line has sent packets to which, and when.
    pub(crate) fn count_packets(&self) {
        self.shared.crossings.get_or_init(Mutex::default);
    }

    /// How many packets one line has sent to another within a time (see [`crossings::GRAIN`]); none if they were not counted.
    pub(crate) fn packets(&self, from: LineId, to: LineId, begin: Instant, end: Instant) -> Option<u64> {
        let since = |at: Instant| at.saturating_duration_since(self.shared.began);
        let crossings = self.shared.crossings.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(crossings.between(from, to, since(begin), since(end)))
    }

    fn port(&self, line: LineId) -> Option<Arc<Port>> {
        let ports = self.shared.ports.read().unwrap_or_else(PoisonError::into_inner);
        ports.iter().find(|port| port.id == line).cloned()
    }

    /// What it has done so far.
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.shared.delay.close();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Takes what comes from one device until the device is gone.
async fn carry(shared: &Shared, port: &Port) {
    let mut buffer = vec![0; LONGEST];
    while let Ok(len) = port.device.recv(&mut buffer).await {
        if len > VIRTIO_NET_HDR_LEN {
            shared.route(port, &mut buffer[..len]);
        }
    }
}

impl Shared {
    fn route(&self, from: &Port, buffer: &mut [u8]) {
        let packet = &mut buffer[VIRTIO_NET_HDR_LEN..];
        let Some((sender, to)) = endpoints(packet) else { return };
        // What has no destination beyond its own line (neighbour discovery, multicast) needs no answer.
        if to.is_multicast() || to.is_unspecified() {
            return;
        }
        from.count_up(packet);
        let Some(target) = self.port_to(to) else {
            count(&self.counters.unroutable);
            self.answer(sender, unreachable(packet, from.edge), 1);
            return;
        };
        if let Some(crossings) = self.crossings.get() {
            let mut crossings = crossings.lock().unwrap_or_else(PoisonError::into_inner);
            crossings.count(from.id, target.id, self.began.elapsed());
        }
        let (way, is_usual) = {
            let ways = self.ways.read().unwrap_or_else(PoisonError::into_inner);
            (ways.between(from.id, target.id), ways.is_usual(from.id, target.id))
        };
        let Some(way) = way else { return count(&self.counters.cut) };
        match cross(packet, &[from.edge, self.backbone, target.edge]) {
            Crossing::Passed if way.is_rough() || from.is_slow() || target.is_slow() => {
                self.send_by_rough_way(from, target, buffer, (&way, is_usual));
            }
            Crossing::Passed => self.send(target, buffer, way.delay),
            Crossing::Expired { at, answer } => {
                count(&self.counters.expired);
                self.answer(sender, answer, at + 1);
            }
        }
    }

    /// Sends what a router says back over the links that the packet had come.
    fn answer(&self, to: IpAddr, answer: Option<Vec<u8>>, links: usize) {
        let Some((answer, target)) = answer.zip(self.port_to(to)) else { return };
        let mut buffer = vec![0; VIRTIO_NET_HDR_LEN];
        buffer.extend(answer);
        // Between two attachments there is one link more than there are routers; all take the same time.
        let there_and_back = 2 * links as u32;
        let delay = self.ways.read().unwrap_or_else(PoisonError::into_inner).usual().delay;
        self.send(target, &buffer, delay * there_and_back / (HOPS as u32 + 1));
    }

    fn send(&self, target: Arc<Port>, buffer: &[u8], delay: Duration) {
        if delay.is_zero() {
            self.count_sent(target.send(buffer));
        } else {
            self.send_at(target, buffer, Instant::now() + delay);
        }
    }

    /// The rate of the usual way is that of each line, the rate of another way that of all between its two lines.
    fn send_by_rough_way(&self, from: &Port, target: Arc<Port>, buffer: &[u8], (way, is_usual): (&Way, bool)) {
        let bytes = buffer.len() - VIRTIO_NET_HDR_LEN;
        let (of_line, of_way) = if is_usual { (way.rate, None) } else { (None, way.rate) };
        let queued =
            from.carried_in(of_line, Instant::now(), bytes).and_then(|at| from.carried_to(&target, of_way, at, bytes));
        let Some(set_out) = queued else { return count(&self.counters.queued_too_long) };
        let Some(arrival) = from.arrival_at(&target, way, set_out, &mut rand::rng()) else {
            return count(&self.counters.lost);
        };
        match target.carried_out(of_line, arrival, bytes) {
            Some(at) => self.send_at(target, buffer, at),
            None => count(&self.counters.queued_too_long),
        }
    }

    fn send_at(&self, target: Arc<Port>, buffer: &[u8], at: Instant) {
        if !self.delay.push(target, buffer.to_vec(), at) {
            count(&self.counters.overflown);
        }
    }

    fn port_to(&self, to: IpAddr) -> Option<Arc<Port>> {
        let ports = self.ports.read().ok()?;
        // The newest first: a site that is set up again replaces what is about to vanish.
        ports.iter().rev().find(|port| port.reaches(to)).cloned()
    }

    fn count_sent(&self, sent: io::Result<usize>) {
        match sent {
            Ok(_) => count(&self.counters.passed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => count(&self.counters.overflown),
            // The site has been unplugged.
            Err(_) => {}
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
