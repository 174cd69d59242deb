//! The core of the lab's network: routers between all attachments, in this process, on one TUN device for each attachment.
//!
//! ```text
//!  NAT ─ wan (TUN) ─ edge router ─ backbone ─ edge router ─ (TUN) wan ─ NAT or host
//! ```
//!
//! Packets go by destination, over [`HOPS`] routers between any two attachments. Each router counts the hop limit down and answers
//! when it runs out; the way takes time, and may lose packets and more (`way`). Segments stay together (GSO): a device gives and takes
//! packets of up to 64 KiB with their virtio header, and the core hands both on as they are, so it carries more than the hosts behind it
//! make. Only on a rough way each goes by itself: whoever attaches a line has it segmented before (`world`).
//!
//! What it is not: a NAT or a firewall; those are the kernel's, in the namespaces (`rules`).

mod delay;
mod packet;
mod port;
mod way;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::oneshot;
use tun_rs::{AsyncDevice, SyncDevice, VIRTIO_NET_HDR_LEN};

use self::{
    delay::DelayLine,
    packet::{Crossing, cross, endpoints, unreachable},
    port::Port,
};
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
    way: Way,
    backbone: Router,
    ports: RwLock<Vec<Arc<Port>>>,
    delay: DelayLine,
    counters: Counters,
}

impl Core {
    /// Starts a core with nothing attached.
    pub(crate) fn start(way: Way, backbone: Router) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            way,
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
                delivered.count_sent(target.device.try_send(&packet));
            }
        })?;
        Ok(Self { runtime: handle, shared, stop: Some(stop), threads: vec![carrier, deliverer] })
    }

    /// Attaches a line. It goes away with its device, when the namespace that holds it is removed.
    pub(crate) fn attach(&self, attachment: Attachment) -> Result<()> {
        let _context = self.runtime.enter();
        let device = AsyncDevice::new(attachment.device).context("cannot watch a TUN device")?;
        let port = Arc::new(Port::new(device, attachment.networks, attachment.edge));
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
        Ok(())
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
        let Some(target) = self.port_to(to) else {
            count(&self.counters.unroutable);
            self.answer(sender, unreachable(packet, from.edge), 1);
            return;
        };
        match cross(packet, &[from.edge, self.backbone, target.edge]) {
            Crossing::Passed if self.way.is_rough() => self.send_by_rough_way(from, target, buffer),
            Crossing::Passed => self.send(target, buffer, self.way.delay),
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
        self.send(target, &buffer, self.way.delay * there_and_back / (HOPS as u32 + 1));
    }

    fn send(&self, target: Arc<Port>, buffer: &[u8], delay: Duration) {
        if delay.is_zero() {
            self.count_sent(target.device.try_send(buffer));
        } else {
            self.send_at(target, buffer, Instant::now() + delay);
        }
    }

    fn send_by_rough_way(&self, from: &Port, target: Arc<Port>, buffer: &[u8]) {
        let bytes = buffer.len() - VIRTIO_NET_HDR_LEN;
        let Some(set_out) = from.carried_in(&self.way, Instant::now(), bytes) else {
            return count(&self.counters.queued_too_long);
        };
        let Some(arrival) = from.arrival_at(&target, &self.way, set_out, &mut rand::rng()) else {
            return count(&self.counters.lost);
        };
        match target.carried_out(&self.way, arrival, bytes) {
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
