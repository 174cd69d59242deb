//! One agent without a network, whose peer is the test itself and may lie.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use stun_types::message::TransactionId;

use super::pair::{credentials, start};
use crate::{
    Agent, AgentOptions, Config, ConnId, Description, FailureReason, LocalCandidate, Mapping, Output, Priority, Role,
    Selected, Stream,
    candidate::{Candidate, CandidateKind, TcpType},
    messages::{AnswerOutcome, Check, Incoming, check, read},
};

pub(super) const HERE: &str = "192.0.2.10:4001";
pub(super) const THERE: &str = "198.51.100.20:4001";

pub(super) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(super) struct Solo {
    pub(super) agent: Agent,
    pub(super) now: Instant,
    role: Role,
    /// All that the agent ever wanted.
    pub(super) outputs: Vec<Output>,
    transactions: u128,
}

impl Solo {
    /// An agent with one public address, whose peer has described itself.
    pub(super) fn new(role: Role) -> Self {
        Self::with_remote(role, description(vec![passive(THERE)]))
    }

    pub(super) fn with_remote(role: Role, remote: Description) -> Self {
        let mut solo = Self::undescribed(role);
        solo.tell(|agent, now| agent.set_remote(now, remote).unwrap());
        solo
    }

    /// An agent that does not know its peer.
    pub(super) fn undescribed(role: Role) -> Self {
        let now = start();
        let options = AgentOptions { stream: Stream::Direct, mapping: Mapping::EndpointIndependent, opening: true };
        let agent = Agent::new(Config::default(), role, credentials(b'a'), options, [7; 32], now);
        let mut solo = Self { agent, now, role, outputs: Vec::new(), transactions: 1 };
        let base = addr(HERE);
        let types = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen];
        let candidates = types
            .map(|tcp_type| LocalCandidate { candidate: Candidate::new(CandidateKind::Host, tcp_type, base, 0), base });
        solo.tell(|agent, now| agent.add_local_candidates(now, &candidates, true));
        solo
    }

    /// One input; what comes of it is returned, too.
    pub(super) fn tell<T>(&mut self, input: impl FnOnce(&mut Agent, Instant) -> T) -> T {
        let result = input(&mut self.agent, self.now);
        while let Some(output) = self.agent.poll_output() {
            self.outputs.push(output);
        }
        result
    }

    /// Lets time pass, with every timeout in it.
    pub(super) fn wait(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(Agent::handle_timeout);
            let next = self.agent.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timeout does not go on");
        }
        self.now = until;
    }

    /// Lets time pass until the agent must have ended.
    pub(super) fn wait_for_the_end(&mut self) {
        let config = Config::default();
        let round_trips = config.deadline_round_trips * config.initial_round_trip;
        self.wait(config.deadline + round_trips + Duration::from_secs(1));
    }

    /// A connection that the peer makes.
    pub(super) fn accept(&mut self, from_port: u16) -> Option<ConnId> {
        let remote = SocketAddr::new(addr(THERE).ip(), from_port);
        self.tell(|agent, now| agent.accepted(now, addr(HERE), remote))
    }

    /// A check of the peer's, which knows the password.
    pub(super) fn check(&mut self, conn: ConnId, nominates: bool) {
        let role = match self.role {
            Role::Controlling => Role::Controlled,
            Role::Controlled => Role::Controlling,
        };
        self.check_as(conn, Check { priority: Priority::LEAST, role: Some((role, 5)), nominates }, b'a');
    }

    /// A check that says anything, with the password of a side of this name.
    pub(super) fn check_as(&mut self, conn: ConnId, says: Check, password_of: u8) {
        self.transactions += 1;
        let mut receiver = credentials(b'a');
        receiver.password = credentials(password_of).password;
        let id = TransactionId::from(self.transactions);
        let message = check(id, &says, &credentials(b'b'), &receiver);
        self.tell(|agent, now| agent.received(now, conn, &message));
    }

    /// Answers all checks of the agent's on a connection that have not been answered yet, from `since` on.
    pub(super) fn answer(&mut self, conn: ConnId, since: usize) {
        let answers: Vec<Vec<u8>> = self.outputs[since..]
            .iter()
            .filter_map(|output| match output {
                Output::Send { conn: on, message } if *on == conn => match read(message) {
                    Ok(Incoming::Request(request)) => Some(request.success(addr(HERE), &credentials(b'b'))),
                    _ => None,
                },
                _ => None,
            })
            .collect();
        for answer in answers {
            self.tell(|agent, now| agent.received(now, conn, &answer));
        }
    }

    /// The successes and errors that the agent has sent.
    pub(super) fn answers(&self) -> Vec<Option<AnswerOutcome>> {
        let sent = self.outputs.iter().filter_map(|output| match output {
            Output::Send { message, .. } => read(message).ok(),
            _ => None,
        });
        sent.filter_map(|incoming| match incoming {
            Incoming::Answer(answer) => Some(answer.outcome(&credentials(b'a')).ok()),
            _ => None,
        })
        .collect()
    }

    pub(super) fn connects(&self) -> Vec<(ConnId, SocketAddr)> {
        let connects = self.outputs.iter().filter_map(|output| match output {
            Output::Connect { conn, remote, .. } => Some((*conn, *remote)),
            _ => None,
        });
        connects.collect()
    }

    pub(super) fn selected(&self) -> Vec<Selected> {
        let selected = self.outputs.iter().filter_map(|output| match output {
            Output::Selected(selected) => Some(selected.clone()),
            _ => None,
        });
        selected.collect()
    }

    pub(super) fn failed(&self) -> Vec<FailureReason> {
        let failed = self.outputs.iter().filter_map(|output| match output {
            Output::Failed(reason) => Some(*reason),
            _ => None,
        });
        failed.collect()
    }

    pub(super) fn closed(&self) -> Vec<ConnId> {
        let closed = self.outputs.iter().filter_map(|output| match output {
            Output::Close { conn } => Some(*conn),
            _ => None,
        });
        closed.collect()
    }

    /// What came after the negotiation had ended, but for the closing of connections.
    pub(super) fn afterwards(&self) -> Vec<&Output> {
        let is_end = |output: &Output| matches!(output, Output::Selected(_) | Output::Failed(_));
        let after = self.outputs.iter().skip_while(|output| !is_end(output)).skip(1);
        after.filter(|output| !matches!(output, Output::Close { .. })).collect()
    }
}

pub(super) fn passive(text: &str) -> Candidate {
    Candidate::new(CandidateKind::Host, TcpType::Passive, addr(text), 0)
}

/// What a peer of that kind would say.
pub(super) fn description(candidates: Vec<Candidate>) -> Description {
    let credentials = credentials(b'b');
    Description {
        ufrag: credentials.ufrag,
        password: credentials.password,
        candidates,
        complete: true,
        mapping: Mapping::EndpointIndependent,
        opening: true,
    }
}
