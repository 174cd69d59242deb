//! A port of the router that leads to this node's port: asked for by PCP (RFC 6887), NAT-PMP (RFC 6886) or UPnP-IGD,
//! renewed before it expires, and given back at the end.
//!
//! What it is not: proof that somebody gets through; the router may itself be behind a NAT.

mod lease;
mod router;

use std::{fmt, net::SocketAddr, pin::pin, time::Duration};

use futures::future::select;
use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};

use self::{lease::Lease, router::Router};
use super::NetworkChange;

/// A port is renewed this often even where it is given for longer: a router that was restarted has forgotten it.
const RENEW_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// A port is not renewed more often than this, however short its time is.
const RENEW_AT_LEAST: Duration = Duration::from_secs(20);
/// How long after a failure the router is asked again; somebody may have switched port mapping on.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long a request that is under way may hold up the end of the node.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long giving a port back may hold up the end of the node.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A protocol in which routers are asked for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MappingProtocol {
    /// Port Control Protocol (RFC 6887).
    Pcp,
    /// NAT Port Mapping Protocol (RFC 6886).
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

/// Which protocols the router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RouterProtocols {
    /// Port Control Protocol.
    pub pcp: bool,
    /// NAT Port Mapping Protocol.
    pub nat_pmp: bool,
    /// UPnP Internet Gateway Device.
    pub upnp: bool,
}

/// What the router does for this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PortMapping {
    /// It is not to be asked.
    #[default]
    Off,
    /// It is being asked.
    Asking,
    /// There is none, or it answers no protocol.
    NoAnswer {
        /// Why, in words.
        reason: String,
    },
    /// It answers, but gives no port.
    Refused {
        /// What it answers.
        protocols: RouterProtocols,
        /// What it says, in words.
        reason: String,
    },
    /// It has mapped a port.
    Mapped {
        /// What it answers.
        protocols: RouterProtocols,
        /// By which protocol the port was mapped.
        by: MappingProtocol,
        /// The address to which the router sends what comes in.
        local: SocketAddr,
        /// The router's outer address.
        external: SocketAddr,
    },
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

impl RouterProtocols {
    /// Their names, best first.
    pub fn names(self) -> Vec<String> {
        let spoken = [
            (self.pcp, MappingProtocol::Pcp),
            (self.nat_pmp, MappingProtocol::NatPmp),
            (self.upnp, MappingProtocol::Upnp),
        ];
        spoken.iter().filter(|(is_spoken, _)| *is_spoken).map(|(_, protocol)| protocol.to_string()).collect()
    }
}

/// Keeps a port of the router until told to end, and gives it back then. Starts anew whenever the network changes.
pub(super) async fn keep(
    listeners: Vec<SocketAddr>,
    state: watch::Sender<PortMapping>,
    mut network: watch::Receiver<NetworkChange>,
    mut end: oneshot::Receiver<()>,
) {
    let mut ended = false;
    while !ended {
        state.send_replace(PortMapping::Asking);
        let mut held = None;
        {
            let mut holding = pin!(hold(&listeners, &state, &mut held));
            ended = tokio::select! {
                () = &mut holding => false,
                changed = network.changed() => changed.is_err(),
                _ = &mut end => true,
            };
            // A port that is just being given could not be given back later.
            let mut settled = state.subscribe();
            let settle = settled.wait_for(|state| *state != PortMapping::Asking);
            if ended {
                let _ = timeout(SETTLE_TIMEOUT, select(holding, pin!(settle))).await;
            }
        }
        if let Some(lease) = held.take() {
            release(lease).await;
        }
    }
}

/// Asks for a port and renews it for as long as this is polled. Returns when the router has taken it away.
async fn hold(listeners: &[SocketAddr], state: &watch::Sender<PortMapping>, held: &mut Option<Lease>) {
    let (router, mut protocols) = loop {
        match ask(listeners).await {
            Ok((router, protocols, lease)) => {
                *held = Some(lease);
                break (router, protocols);
            }
            Err(failed) => {
                tracing::debug!(?failed, "no port is mapped");
                state.send_replace(failed);
            }
        }
        sleep(ASK_AGAIN_AFTER).await;
    };
    while let Some(lease) = held {
        let (by, local, external) = (lease.by(), lease.local(), lease.external());
        let mapped = |protocols| PortMapping::Mapped { protocols, by, local, external };
        tracing::debug!(%by, %external, "the router has mapped a port");
        state.send_replace(mapped(protocols));
        if by == MappingProtocol::Pcp {
            protocols = lease::protocols(&router).await;
            state.send_replace(mapped(protocols));
        }
        sleep((lease.lifetime() / 2).clamp(RENEW_AT_LEAST, RENEW_AT_MOST)).await;
        if let Err(error) = lease.renew().await {
            tracing::debug!(%error, "the router does not renew the port");
            // It is asked for anew, which replaces what may still stand.
            *held = None;
        }
    }
}

async fn ask(listeners: &[SocketAddr]) -> Result<(Router, RouterProtocols, Lease), PortMapping> {
    let listeners = listeners.to_vec();
    let no_answer = |error: &dyn fmt::Display| PortMapping::NoAnswer { reason: error.to_string() };
    let found = tokio::task::spawn_blocking(move || Router::find(&listeners)).await;
    let router = found.map_err(|error| no_answer(&error))?.map_err(|error| no_answer(&error))?;
    match Lease::ask(&router).await {
        (protocols, Ok(lease)) => Ok((router, protocols, lease)),
        (protocols, Err(error)) if protocols == RouterProtocols::default() => Err(no_answer(&error)),
        (protocols, Err(error)) => Err(PortMapping::Refused { protocols, reason: error.to_string() }),
    }
}

async fn release(lease: Lease) {
    match timeout(RELEASE_TIMEOUT, lease.release()).await {
        Ok(Ok(())) => tracing::debug!("the mapped port is given back"),
        Ok(Err(error)) => tracing::debug!(%error, "the router did not take the mapped port back"),
        Err(_) => tracing::debug!("the router does not answer when the mapped port is given back"),
    }
}
