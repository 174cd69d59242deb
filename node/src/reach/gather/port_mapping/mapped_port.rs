//! The task that keeps a port of the router: when it is asked for, renewed and given back.
//!
//! What it is not: the protocols; see [`super::lease`].

use std::{fmt, net::SocketAddr, pin::pin, time::Duration};

use futures::future::select;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    MappingProtocol, PortMapping, RouterProtocols,
    lease::{self, MappingLease},
    router::Router,
};
use crate::reach::gather::{GatherError, NetworkChange};

/// How often to renew a port even if the router gives it for longer: a router that was restarted has forgotten it.
const RENEW_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// The least time between two renewals, however short the router's time is.
const RENEW_AT_LEAST: Duration = Duration::from_secs(20);
/// How long to wait after a failure before the router is asked again: somebody may have switched port mapping on.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long a request that is under way may hold up the end of the node.
const SETTLE_TIMEOUT: Duration = Duration::from_millis(300);
/// How long giving a port back may hold up the end of the node.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The router's port, which a task of its own keeps.
pub(in super::super) struct MappedPort {
    state: watch::Receiver<PortMapping>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl MappedPort {
    /// Begins to ask for a port that leads to one of these listening addresses.
    pub(in super::super) fn start(
        listeners: &[SocketAddr],
        network: watch::Receiver<NetworkChange>,
    ) -> Result<Self, GatherError> {
        let (sender, state) = watch::channel(PortMapping::Asking);
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(keep(listeners.to_vec(), sender, network, ended));
        Ok(Self { state, end, task })
    }

    /// What the router does at the moment.
    pub(in super::super) fn state(&self) -> PortMapping {
        self.state.borrow().clone()
    }

    /// Resolves when that has changed, and never after the task has ended.
    pub(in super::super) async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Gives the port back.
    pub(in super::super) async fn release(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

/// Keeps a port of the router until told to end, and gives it back then. Starts anew whenever the network changes.
async fn keep(
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
            // Without this wait, a port that the router is just giving could not be given back.
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
async fn hold(listeners: &[SocketAddr], state: &watch::Sender<PortMapping>, held: &mut Option<MappingLease>) {
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
            // The node asks anew, which replaces what may still stand.
            *held = None;
        }
    }
}

async fn ask(listeners: &[SocketAddr]) -> Result<(Router, RouterProtocols, MappingLease), PortMapping> {
    let listeners = listeners.to_vec();
    let no_answer = |error: &dyn fmt::Display| PortMapping::NoAnswer { reason: error.to_string() };
    let found = tokio::task::spawn_blocking(move || Router::find(&listeners)).await;
    let router = found.map_err(|error| no_answer(&error))?.map_err(|error| no_answer(&error))?;
    match MappingLease::ask(&router).await {
        (protocols, Ok(lease)) => Ok((router, protocols, lease)),
        (protocols, Err(error)) if protocols == RouterProtocols::default() => Err(no_answer(&error)),
        (protocols, Err(error)) => Err(PortMapping::Refused { protocols, reason: error.to_string() }),
    }
}

async fn release(lease: MappingLease) {
    match timeout(RELEASE_TIMEOUT, lease.release()).await {
        Ok(Ok(())) => tracing::debug!("the mapped port is given back"),
        Ok(Err(error)) => tracing::debug!(%error, "the router did not take the mapped port back"),
        Err(_) => tracing::debug!("the router does not answer when the mapped port is given back"),
    }
}
