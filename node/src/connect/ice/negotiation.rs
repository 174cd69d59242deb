//! Negotiations that have begun: the peer can be told of them, and its connections are kept for them.
//!
//! What it is not: how one goes on, which is `run`.

use std::sync::Arc;

use keyferry_ice::{Agent, AgentOptions, Config, Credentials, Description, Mapping, Role, Stream};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::Instant,
};

use super::{
    Dialogue, FoundPath, IceError, Inbound, RelayedDialogue,
    addresses::{OwnCandidates, PeerArrivals},
    host::{IceHost, Registration, TooManyNegotiations},
    relaying::{AllocationSteps, Relaying},
    run::{BegunNegotiation, RunningNegotiation},
    talk::Talk,
};
use crate::{
    net::{
        path::{AddressPolicy, Path},
        port::CAN_OPEN,
    },
    reach::{gather::Gathered, turn_client::RelayAllocator},
};

/// A negotiation of a direct stream.
#[derive(Debug)]
pub struct Negotiation {
    begun: BegunNegotiation,
    inbound: mpsc::Receiver<Inbound>,
    registration: Registration,
}

/// A negotiation of a relayed stream. It asks for allocations from its beginning.
#[derive(Debug)]
pub struct RelayedNegotiation {
    begun: BegunNegotiation,
    relaying: Relaying,
    _place: OwnedSemaphorePermit,
}

impl IceHost {
    /// Begins a negotiation: from now on the node takes in connections for it.
    pub fn begin(self: &Arc<Self>, role: Role) -> Result<Negotiation, TooManyNegotiations> {
        let credentials = Credentials::from_random(&rand::random());
        let (registration, inbound) = self.register(&credentials.ufrag)?;
        Ok(Negotiation::new(registration, role, credentials, self.config.clone(), self.gathered.clone(), inbound))
    }

    /// Begins a negotiation of a relayed stream, which asks for allocations from now on. `hidden`: it tells the peer no address
    /// of this side.
    pub fn begin_relayed(
        self: &Arc<Self>,
        role: Role,
        allocator: &Arc<dyn RelayAllocator>,
        hidden: bool,
    ) -> Result<RelayedNegotiation, TooManyNegotiations> {
        let place = self.register_relayed()?;
        let relaying = Relaying::new(allocator, &self.allocations, hidden);
        Ok(RelayedNegotiation::new(Arc::clone(self), role, relaying, place))
    }
}

impl Negotiation {
    fn new(
        registration: Registration,
        role: Role,
        credentials: Credentials,
        config: Config,
        mut gathered: watch::Receiver<Gathered>,
        inbound: mpsc::Receiver<Inbound>,
    ) -> Self {
        let now = Instant::now().into_std();
        let known = gathered.borrow_and_update().clone();
        let options = AgentOptions { stream: Stream::Direct, mapping: known.mapping, opening: CAN_OPEN };
        let mut agent = Agent::new(config, role, credentials, options, rand::random(), now);
        agent.add_local_candidates(now, &known.candidates, known.complete);
        let host = Arc::clone(&registration.host);
        let candidates = OwnCandidates::new(known.candidates, gathered);
        let begun = BegunNegotiation { agent, candidates, host, first_words: Vec::new() };
        Self { begun, inbound, registration }
    }

    /// What the peer has to be told first.
    pub fn description(&self) -> Description {
        self.begun.agent.description()
    }

    /// The next connection that has come in for this negotiation.
    #[cfg(test)]
    pub(crate) async fn next_inbound(&mut self) -> Inbound {
        self.inbound.recv().await.expect("the host has the other end")
    }

    /// Has these bytes, the first that are raw, go right behind this side's last frame, if it is the one that nominates.
    pub fn saying(mut self, first_words: &[u8]) -> Self {
        self.begun.first_words = first_words.to_vec();
        self
    }

    /// Looks for a path to the peer that has been told, until there is one or it is certain that there is none. Tries addresses
    /// that the peer names only where `policy` lets a stranger make this node connect.
    ///
    /// Dropping the future ends the negotiation and closes its connections.
    pub async fn run(self, dialogue: Dialogue, policy: &AddressPolicy) -> Result<Path, IceError> {
        self.find(dialogue, policy).await.map(|found| found.path)
    }

    /// The same; tells what became of each pair also if there is a path.
    pub async fn find(self, dialogue: Dialogue, policy: &AddressPolicy) -> Result<FoundPath, IceError> {
        let Self { begun, inbound, registration } = self;
        let arrivals = PeerArrivals::Port { inbound, _registration: registration };
        RunningNegotiation::new(begun, arrivals, dialogue.into(), policy).find().await
    }
}

impl RelayedNegotiation {
    fn new(host: Arc<IceHost>, role: Role, relaying: Relaying, place: OwnedSemaphorePermit) -> Self {
        let (config, gathered) = (host.config.clone(), host.gathered.clone());
        let credentials = Credentials::from_random(&rand::random());
        // A relay can be reached whatever the NATs do.
        let options = AgentOptions { stream: Stream::Relayed, mapping: Mapping::Unknown, opening: false };
        let agent = Agent::new(config, role, credentials, options, rand::random(), Instant::now().into_std());
        let candidates = OwnCandidates::new(Vec::new(), gathered);
        Self { begun: BegunNegotiation { agent, candidates, host, first_words: Vec::new() }, relaying, _place: place }
    }

    /// As [`Negotiation::saying`].
    pub fn saying(mut self, first_words: &[u8]) -> Self {
        self.begun.first_words = first_words.to_vec();
        self
    }

    /// What has come, and will come, of asking the relays of this side.
    pub fn allocation_steps(&self) -> AllocationSteps {
        self.relaying.steps()
    }

    /// Looks for a path through relays, as [`Negotiation::find`] does for a direct one. The peer gets this side's description in
    /// the dialogue. An allocation that the path needs lasts as long as the path.
    pub async fn find(mut self, dialogue: RelayedDialogue, policy: &AddressPolicy) -> Result<FoundPath, IceError> {
        self.relaying.take_made();
        self.relaying.permit(dialogue.known.iter().copied());
        let Self { begun, relaying, _place } = self;
        let (talk, describe) = Talk::in_relayed(dialogue);
        let mut running = RunningNegotiation::new(begun, PeerArrivals::Relays(relaying), talk, policy);
        running.describe(describe);
        running.find().await
    }
}
