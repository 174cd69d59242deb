//! The whole of gathering in networks of its own: a machine at home, its router, and the internet.
//!
//! What it is not: the tests of the parts, which stand beside them.

pub(crate) mod lab;
mod network;
mod router;

use std::time::Duration;

use keyferry_ice::{CandidateKind, Mapping};
use zeroize::Zeroizing;

use super::*;
use crate::{
    net::{
        port::{IncomingConnections, Port},
        trouble::{Trouble, Troubles},
    },
    reach::rendezvous::{Rendezvous, RendezvousConfig},
};

/// A gatherer on a port, with a rendezvous that knows nobody.
struct Node {
    port: std::sync::Arc<Port>,
    sessions: tokio::sync::mpsc::Receiver<crate::net::port::Accepted>,
    _rendezvous: Rendezvous,
    gatherer: Gatherer,
    troubles: Troubles,
}

impl Node {
    async fn start(config: GatherConfig) -> Self {
        let (port, incoming) = Port::bind(&["0.0.0.0:4600".parse().unwrap()]).await.unwrap();
        let port = std::sync::Arc::new(port);
        let quiet = RendezvousConfig {
            mdns: false,
            local_bootstrap: false,
            ..RendezvousConfig::new(Zeroizing::new(rand::random()))
        };
        let IncomingConnections { libp2p, sessions, .. } = incoming;
        let (rendezvous, _) = Rendezvous::spawn(quiet, port.clone(), libp2p).unwrap();
        let troubles = Troubles::default();
        let gatherer = spawn(config, port.clone(), rendezvous.status(), &troubles).unwrap();
        Self { port, sessions, _rendezvous: rendezvous, gatherer, troubles }
    }

    /// Waits until what is gathered fulfils a condition.
    async fn until(&self, condition: impl Fn(&Gathered) -> bool) -> Gathered {
        let mut gathered = self.gatherer.gathered();
        let waiting = gathered.wait_for(|gathered| condition(gathered));
        match tokio::time::timeout(Duration::from_secs(30), waiting).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("not in time: {:#?}", self.gatherer.gathered().borrow().clone()),
        }
    }
}

fn addrs_of(gathered: &Gathered, kind: CandidateKind) -> Vec<String> {
    let mut found: Vec<String> = gathered
        .candidates
        .iter()
        .filter(|own| own.candidate.kind == kind && own.candidate.tcp_type != keyferry_ice::TcpType::Active)
        .map(|own| own.candidate.addr.to_string())
        .collect();
    found.sort();
    found.dedup();
    found
}
