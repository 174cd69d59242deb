//! `doctor`: where this machine stands in the network, found out from what the node has gathered and a few tests more.
//!
//! Mapping is told from what several hosts saw of one local port, filtering from who got in when asked to try: the idea of
//! RFC 5780 §4.3 and §4.4, over TCP and without a server that has two addresses. What cannot be told so is not known.
//!
//! What it is not: a judgement on one peer; `ping` has that.

mod verdict;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::pending,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use keyferry_ice::{Mapping, Source};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use self::verdict::verdict;
use super::{
    Error, Node,
    api::{
        Diagnosis, Event, FamilyInfo, FilteringInfo, Finding, InterfaceInfo, PortMappingInfo, Reach, SeenAddr,
        StunInfo, TurnInfo,
    },
    events::{Events, tell},
};
use crate::{
    net::{
        port::{CAN_OPEN, Port},
        stun::{StunAskError, StunClient},
    },
    reach::{
        gather::{Gathered, Observation, PortMapping, StunReport, StunState, mapping_of},
        rendezvous::{AddressScope, RendezvousStatus},
        turn_client::Relays,
    },
};

/// How long the outside is waited for: an address is put to the test every few seconds.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long it is waited for where no peer is connected who could try to get in.
const PATIENCE_WITH_NOBODY: Duration = Duration::from_secs(4);
/// The pause between two looks at whether all is known.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What helps where there may be no direct path.
const NAME_A_RELAY: &str =
    "name a relay with --turn: a TURN server with TCP, or the node of a friend that runs with --relay";
/// What helps where another node runs with this node's key.
const ONE_KEY_FOR_TWO: &str = "another running node has this node's key, so that others find the one or the other: stop one of the two, \
                               move its identity.key away, and start it again";
/// How long reaching oneself may take.
const HAIRPIN_TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    /// Examines this machine's place in the network.
    pub(super) async fn doctor(&self, events: &Events, cancel: &CancellationToken) -> Result<(), Error> {
        let online = self.online()?;
        let stage = Event::Stage { message: "asking the router and hosts outside".to_owned() };
        tell(events, stage).await;
        let examining =
            examine(&online.port, online.gathered.clone(), online.rendezvous.status(), online.turn_relays());
        let seeking_twin = async {
            online.finder.seek_twin(&[]).await;
            pending::<Infallible>().await
        };
        let examining = async {
            let mut found = tokio::select! {
                found = examining => found,
                never = seeking_twin => match never {},
            };
            if self.twin().is_some() {
                found.verdict.advice.push(ONE_KEY_FOR_TWO.to_owned());
            }
            found
        };
        let found = cancel.run_until_cancelled(examining).await.ok_or(Error::Interrupted)?;
        tell(events, Event::Diagnosed(Box::new(found))).await;
        Ok(())
    }
}

/// Waits until the outside has said what it has to say, tries the rest, and judges.
pub(super) async fn examine(
    port: &Port,
    mut gathered: watch::Receiver<Gathered>,
    mut status: watch::Receiver<RendezvousStatus>,
    relays: Option<&Relays>,
) -> Diagnosis {
    let asking_relays = async {
        match relays {
            // What was asked for only to see whether it is given is given back already.
            Some(relays) => {
                let probed = relays.probe().await.into_iter();
                Some(probed.map(|report| TurnInfo { allocations: 0, ..report.into() }).collect())
            }
            None => None,
        }
    };
    let ((), turn) = tokio::join!(settle(&mut gathered, &mut status), asking_relays);
    let (gathered, status) = (gathered.borrow().clone(), status.borrow().clone());
    let hairpin = hairpin(port, &gathered).await;
    diagnose(port.local_addrs(), interfaces(), &gathered, &status, hairpin, turn)
}

async fn settle(gathered: &mut watch::Receiver<Gathered>, status: &mut watch::Receiver<RendezvousStatus>) {
    let start = Instant::now();
    loop {
        let is_known = is_known(&gathered.borrow(), &status.borrow());
        let patience = if status.borrow().connected == 0 { PATIENCE_WITH_NOBODY } else { PATIENCE };
        if is_known || start.elapsed() >= patience {
            return;
        }
        tokio::select! {
            Ok(()) = gathered.changed() => {}
            Ok(()) = status.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Whether waiting longer would tell nothing new: the mapping is known, and somebody has tried to get in.
fn is_known(gathered: &Gathered, status: &RendezvousStatus) -> bool {
    let was_tried =
        |one: &Observation| status.external.contains(&one.observed) || status.unreachable.contains(&one.observed);
    gathered.complete
        && gathered.mapping != Mapping::Unknown
        && gathered.port_mapping != PortMapping::Asking
        && gathered.observations.iter().any(was_tried)
}

/// Puts all facts together.
fn diagnose(
    listen: &[SocketAddr],
    interfaces: Vec<InterfaceInfo>,
    gathered: &Gathered,
    status: &RendezvousStatus,
    hairpin: Finding,
    turn: Option<Vec<TurnInfo>>,
) -> Diagnosis {
    let family = |is_ipv4| family(is_ipv4, &interfaces, gathered, status);
    let (ipv4, ipv6) = (family(true), family(false));
    let port_mapping = port_mapping(&gathered.port_mapping);
    let mut verdict = verdict(listen, &ipv4, &ipv6, &port_mapping);
    if let Some(skew) = status.clock.filter(|skew| skew.is_too_much()) {
        verdict
            .advice
            .push(format!("set this machine's clock: it is {skew}, and by more than a day nobody finds it by its key"));
    }
    if turn.as_ref().is_some_and(Vec::is_empty) && verdict.reach != Reach::Direct {
        verdict.advice.push(NAME_A_RELAY.to_owned());
    }
    Diagnosis {
        ipv4,
        ipv6,
        port_mapping,
        hairpin,
        stun: gathered.stun.iter().map(stun).collect(),
        turn,
        opening_syn: CAN_OPEN,
        clock: status.clock,
        wan_peers: status.wan_peers as u64,
        lan_peers: status.lan_peers as u64,
        verdict,
        listen: listen.to_vec(),
        interfaces,
    }
}

fn family(is_ipv4: bool, interfaces: &[InterfaceInfo], gathered: &Gathered, status: &RendezvousStatus) -> FamilyInfo {
    let own =
        interfaces.iter().flat_map(|interface| interface.addrs.iter().copied()).filter(|ip| ip.is_ipv4() == is_ipv4);
    let own: Vec<IpAddr> = own.collect();
    let own_public: Vec<IpAddr> =
        own.iter().copied().filter(|ip| AddressScope::of_ip(*ip) == Some(AddressScope::Wan)).collect();
    let words: Vec<Observation> =
        gathered.observations.iter().copied().filter(|one| one.observer.is_ipv4() == is_ipv4 && is_far(one)).collect();
    let hosts: Vec<SocketAddr> = words.iter().map(|one| one.local).collect();
    let confirmed: Vec<SocketAddr> = status.external.iter().copied().filter(|addr| addr.is_ipv4() == is_ipv4).collect();
    let mapping = mapping_of(&words, &hosts, is_ipv4).into();
    let nat = match words.is_empty() {
        true => Finding::NotKnown,
        false if words.iter().all(|one| own.contains(&one.observed.ip())) => Finding::No,
        false => Finding::Yes,
    };
    let filtering = filtering(&words, &confirmed, status, &gathered.port_mapping);
    FamilyInfo { own_public, seen: seen(&words), confirmed, nat, mapping, filtering }
}

fn is_far(one: &Observation) -> bool {
    AddressScope::of_ip(one.observer.ip()) == Some(AddressScope::Wan)
        && AddressScope::of_ip(one.observed.ip()) == Some(AddressScope::Wan)
}

/// Whom the NAT lets in. Hosts that try come from another port than the one that this node has contacted. A port that the
/// router has mapped lets everybody in, and so says nothing about the others.
fn filtering(
    words: &[Observation],
    confirmed: &[SocketAddr],
    status: &RendezvousStatus,
    mapped: &PortMapping,
) -> FilteringInfo {
    let is_mapped = |addr: &SocketAddr| matches!(mapped, PortMapping::Mapped { external, .. } if external == addr);
    if confirmed.iter().any(|addr| !is_mapped(addr)) {
        FilteringInfo::ContactedHosts
    } else if words.iter().any(|one| status.unreachable.contains(&one.observed)) {
        FilteringInfo::ContactedPorts
    } else {
        FilteringInfo::NotKnown
    }
}

fn seen(words: &[Observation]) -> Vec<SeenAddr> {
    let mut counts: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for one in words {
        *counts.entry(one.observed).or_default() += 1;
    }
    let mut seen: Vec<SeenAddr> = counts.into_iter().map(|(addr, seen_by)| SeenAddr { addr, seen_by }).collect();
    seen.sort_by_key(|seen| std::cmp::Reverse(seen.seen_by));
    seen
}

fn port_mapping(state: &PortMapping) -> PortMappingInfo {
    let asked = PortMappingInfo { asked: true, ..PortMappingInfo::default() };
    match state {
        PortMapping::Off => PortMappingInfo::default(),
        PortMapping::Asking => PortMappingInfo { reason: Some("the router has not answered yet".to_owned()), ..asked },
        PortMapping::NoAnswer { reason } => PortMappingInfo { reason: Some(reason.clone()), ..asked },
        PortMapping::Refused { protocols, reason } => {
            PortMappingInfo { protocols: protocols.names(), reason: Some(reason.clone()), ..asked }
        }
        PortMapping::Mapped { protocols, by, external, .. } => PortMappingInfo {
            protocols: protocols.names(),
            by: Some(by.to_string()),
            external: Some(*external),
            ..asked
        },
    }
}

fn stun(report: &StunReport) -> StunInfo {
    let silent = StunInfo { server: report.server.clone(), mapped: None, took_ms: None, reason: None };
    match &report.state {
        StunState::Asking => StunInfo { reason: Some("no answer yet".to_owned()), ..silent },
        StunState::Failed { reason } => StunInfo { reason: Some(reason.clone()), ..silent },
        StunState::Answered { mapped, took, .. } => {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            StunInfo { mapped: Some(*mapped), took_ms: Some(took_ms), ..silent }
        }
    }
}

/// Connects to this node by its outer address, from another port, and looks whether it arrives here.
async fn hairpin(port: &Port, gathered: &Gathered) -> Finding {
    let Some((base, outer)) = outer_addr(gathered) else { return Finding::NotKnown };
    let arrived = || port.counters().stun.get();
    let before = arrived();
    // Whether it is answered is another matter: not every node answers STUN.
    let asked = timeout(HAIRPIN_TIMEOUT, StunClient::connect(Source::AnyPort(base.ip()), outer)).await;
    match asked {
        Err(_) | Ok(Err(StunAskError::Connect(_) | StunAskError::NoSource)) => Finding::No,
        Ok(_) if arrived() > before => Finding::Yes,
        Ok(_) => Finding::No,
    }
}

/// An outer address of this node behind an IPv4 NAT, with the address before it.
fn outer_addr(gathered: &Gathered) -> Option<(SocketAddr, SocketAddr)> {
    if let PortMapping::Mapped { local, external, .. } = gathered.port_mapping {
        return Some((local, external));
    }
    let behind = |one: &&Observation| one.local.is_ipv4() && one.local != one.observed && is_far(one);
    gathered.observations.iter().find(behind).map(|one| (one.local, one.observed))
}

fn interfaces() -> Vec<InterfaceInfo> {
    let mut found: Vec<InterfaceInfo> = Vec::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let ip = interface.ip();
        if ip.is_loopback() {
            continue;
        }
        match found.iter_mut().find(|known| known.name == interface.name) {
            Some(known) => known.addrs.push(ip),
            None => found.push(InterfaceInfo { name: interface.name, addrs: vec![ip] }),
        }
    }
    found
}

#[cfg(test)]
mod tests;
