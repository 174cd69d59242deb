//! The list of candidate pairs: forming, pruning and ordering it (RFC 8445 §6.1.2, RFC 6544 §6.2).
//!
//! ```text
//! local            remote
//! active           passive            this side connects
//! so               so                 both connect, in turns (`opening`)
//! passive          active             is left out (§6.2); pairs of this kind come up as the peer connects
//! relayed active   passive            a relay connects for this side, in the relayed stream
//! ```
//! What it is not: connections, or checks on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    Candidate, CandidateKind, LocalCandidate, Mapping, PairReport, PairState, Priority, Role, Stream, TcpType,
    candidate::is_from_simultaneous_open,
    means::Means,
    opening::{Opening, Plan, Timing},
    pair::{Foundation, Pair, PairId, Way, is_inside},
    sides::{PeerSide, Sides},
};

/// Pairs that open in turns. Each needs the node's port towards another address.
const MAX_OPENING_PAIRS: usize = 4;

/// All pairs of an agent.
#[derive(Debug, Default)]
pub(super) struct Checklist {
    pairs: BTreeMap<PairId, Pair>,
    last_id: u32,
    /// The foundations of the pairs that this side has tried: the first pair of each goes before all others.
    tried: BTreeSet<(Foundation, Foundation)>,
}

impl Checklist {
    /// Makes the pairs that the candidates known so far allow.
    pub(super) fn form(&mut self, now: Instant, means: &Means, sides: &Sides, role: Role) {
        let Some(peer) = &sides.peer else { return };
        let mut delay = Duration::ZERO;
        for (local, remote) in self.missing(sides.own.options.stream, &sides.own.candidates, &peer.candidates, role) {
            let way = if local.candidate.tcp_type == TcpType::Active {
                Way::Active
            } else {
                let kinds = (local.candidate.kind, remote.kind);
                let Some(plan) = plan((sides.own.options.mapping, peer.mapping), kinds, role) else { continue };
                let opening = opening(now, means, sides, peer, plan, delay);
                delay += means.config.pacing;
                Way::SimultaneousOpen(opening)
            };
            self.add(Pair::new(local, remote, way), role, means.config.max_pairs);
        }
    }

    /// The pairs that these candidates make and that are not there yet, best first.
    fn missing(
        &self,
        stream: Stream,
        local: &[LocalCandidate],
        remote: &[Candidate],
        role: Role,
    ) -> Vec<(LocalCandidate, Candidate)> {
        let mut found: Vec<(LocalCandidate, Candidate)> = Vec::new();
        for own in local {
            for other in remote {
                if !is_pair(stream, own, other, remote) || self.has(own, other) {
                    continue;
                }
                match found.iter_mut().find(|(known, with)| is_redundant(known, with, own, other)) {
                    Some(known) if ranks_before(own, &known.0, other) => *known = (*own, *other),
                    Some(_) => {}
                    None => found.push((*own, *other)),
                }
            }
        }
        found.sort_by_key(|(own, other)| std::cmp::Reverse(Pair::new(*own, *other, Way::Active).priority(role)));
        found
    }

    /// Adds a pair. If there are `limit` already, one that waits makes room: the worst of the kind that there are most of. Otherwise two
    /// machines with many addresses inside would try only those.
    pub(super) fn add(&mut self, pair: Pair, role: Role, limit: usize) -> Option<PairId> {
        let is_opening = matches!(pair.way, Way::SimultaneousOpen(_));
        if is_opening && self.openings().count() >= MAX_OPENING_PAIRS {
            return None;
        }
        if self.pairs.len() >= limit {
            let alike =
                |one: &Pair| self.pairs.values().chain([&pair]).filter(|other| one.is_of_kind_of(other)).count();
            let worth = |one: &Pair| (std::cmp::Reverse(alike(one)), one.priority(role));
            let waiting = self.pairs.iter().filter(|(_, pair)| pair.state == PairState::Waiting);
            let (worst, known) = waiting.min_by_key(|(_, pair)| worth(pair))?;
            if worth(known) >= worth(&pair) {
                return None;
            }
            let worst = *worst;
            self.pairs.remove(&worst);
        }
        self.last_id += 1;
        self.pairs.insert(PairId(self.last_id), pair);
        Some(PairId(self.last_id))
    }

    pub(super) fn get(&self, id: PairId) -> Option<&Pair> {
        self.pairs.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PairId) -> Option<&mut Pair> {
        self.pairs.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PairId, &Pair)> {
        self.pairs.iter().map(|(id, pair)| (*id, pair))
    }

    /// The peer will not act any more, so it is of no use to wait for its turns.
    pub(super) fn peer_is_exhausted(&mut self) {
        for pair in self.pairs.values_mut() {
            if let Way::SimultaneousOpen(opening) = &mut pair.way {
                opening.peer_is_exhausted();
            }
        }
    }

    /// The peer has heard of this side: from now on its turns take as long as the way to it does.
    pub(super) fn peer_is_heard(&mut self, now: Instant, timing: Timing) {
        for pair in self.pairs.values_mut() {
            if let Way::SimultaneousOpen(opening) = &mut pair.way {
                opening.peer_is_heard(now, timing);
            }
        }
    }

    /// The pairs that open in turns.
    pub(super) fn openings(&self) -> impl Iterator<Item = PairId> {
        self.iter().filter(|(_, pair)| matches!(pair.way, Way::SimultaneousOpen(_))).map(|(id, _)| id)
    }

    /// The pairs at which this side will connect.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (PairId, &Pair)> {
        self.iter().filter(|(_, pair)| pair.state == PairState::Waiting && matches!(pair.way, Way::Active))
    }

    /// The pair to connect next of those that may be: the best, but the first of each foundation before all others
    /// (RFC 8445 §6.1.2.6).
    pub(super) fn next_waiting(&self, role: Role, may_be: impl Fn(&Pair) -> bool) -> Option<PairId> {
        self.waiting()
            .filter(|(_, pair)| may_be(pair))
            .max_by_key(|(_, pair)| (!self.tried.contains(&pair.foundation()), pair.priority(role)))
            .map(|(id, _)| id)
    }

    /// Notes that this side tries a pair.
    pub(super) fn mark_tried(&mut self, id: PairId) {
        if let Some(pair) = self.pairs.get(&id) {
            self.tried.insert(pair.foundation());
        }
    }

    /// The pair that the peer means by these addresses, as it sees them.
    pub(super) fn find_opening(
        &self,
        local: &[LocalCandidate],
        theirs: SocketAddr,
        ours: SocketAddr,
    ) -> Option<PairId> {
        let bases = || local.iter().filter(|own| own.candidate.addr == ours).map(|own| own.base);
        self.openings().find(|id| {
            self.pairs
                .get(id)
                .is_some_and(|pair| pair.remote.addr == theirs && bases().any(|base| base == pair.local.base))
        })
    }

    /// The pair that opens in turns between this socket address and that of the peer.
    pub(super) fn find_so(&self, base: SocketAddr, remote: SocketAddr) -> Option<PairId> {
        self.openings()
            .find(|id| self.pairs.get(id).is_some_and(|pair| pair.local.base == base && pair.remote.addr == remote))
    }

    /// The pair whose opening lets in any port of the peer's address, if that is where a connection comes from.
    pub(super) fn find_let_in(&self, base: SocketAddr, remote: SocketAddr, priority: Priority) -> Option<PairId> {
        let lets_in = |pair: &Pair| matches!(&pair.way, Way::SimultaneousOpen(opening) if opening.lets_in_any_port());
        let is_between = |pair: &Pair| pair.local.base == base && pair.remote.addr.ip() == remote.ip();
        let mut pairs = self.iter().filter(|(_, pair)| lets_in(pair) && is_between(pair));
        pairs.next().map(|(id, _)| id).filter(|_| is_from_simultaneous_open(priority))
    }

    /// When something is due in the turns of a pair.
    pub(super) fn turn_due_at(&self) -> Option<Instant> {
        let turns = self.pairs.values().filter_map(|pair| match &pair.way {
            Way::SimultaneousOpen(opening) => opening.due_at(),
            Way::Active | Way::Passive => None,
        });
        turns.min()
    }

    /// All pairs, best first.
    pub(super) fn reports(&self, role: Role) -> Vec<PairReport> {
        let mut pairs: Vec<&Pair> = self.pairs.values().collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.priority(role)));
        pairs.into_iter().map(Pair::report).collect()
    }

    fn has(&self, own: &LocalCandidate, other: &Candidate) -> bool {
        self.pairs.values().any(|pair| is_redundant(&pair.local, &pair.remote, own, other))
    }
}

/// Who opens between candidates of these kinds, behind NATs with these mappings; this side's come first. `None`: nobody can say
/// where to connect.
fn plan(mappings: (Mapping, Mapping), kinds: (CandidateKind, CandidateKind), role: Role) -> Option<Plan> {
    let is_dependent = |mapping, kind| mapping == Mapping::EndpointDependent && kind != CandidateKind::Host;
    match (is_dependent(mappings.0, kinds.0), is_dependent(mappings.1, kinds.1)) {
        (true, true) => None,
        (true, false) => Some(Plan::There),
        (false, true) => Some(Plan::Here),
        // The controlled side knows both descriptions first.
        (false, false) => Some(Plan::Alternate { ours_first: role == Role::Controlled }),
    }
}

/// The turns of a pair, which begin after `delay`.
fn opening(now: Instant, means: &Means, sides: &Sides, peer: &PeerSide, plan: Plan, delay: Duration) -> Opening {
    let can_open = (sides.own.options.opening, peer.opening);
    let mut opening = Opening::new(plan, can_open, &means.config, delay, means.timing(), now);
    if peer.exhausted {
        opening.peer_is_exhausted();
    }
    opening
}

/// Whether two candidates can be connected (RFC 6544 §6.2), and are worth it.
fn is_pair(stream: Stream, own: &LocalCandidate, other: &Candidate, remote: &[Candidate]) -> bool {
    let is_relayed = [own.candidate.kind, other.kind].contains(&CandidateKind::Relayed);
    if is_relayed != (stream == Stream::Relayed) {
        return false;
    }
    if own.candidate.addr.is_ipv4() != other.addr.is_ipv4() || own.base == other.addr {
        return false;
    }
    match (own.candidate.tcp_type, other.tcp_type) {
        (TcpType::Active, TcpType::Passive) => true,
        (TcpType::SimultaneousOpen, TcpType::SimultaneousOpen) if is_relayed => false,
        // In one house nothing stands between two nodes: where one of them accepts connections, nobody has to open a way.
        (TcpType::SimultaneousOpen, TcpType::SimultaneousOpen) => {
            let accepts = |known: &Candidate| known.tcp_type == TcpType::Passive && known.addr == other.addr;
            !(is_inside(other.addr) && remote.iter().any(accepts)) && is_one_side_of_nat(own, other)
        }
        _ => false,
    }
}

/// Whether both addresses of a pair that opens in turns are inside, or both outside: signals name the address of this side that
/// the peer will see.
fn is_one_side_of_nat(own: &LocalCandidate, other: &Candidate) -> bool {
    is_inside(own.candidate.addr) == is_inside(other.addr)
}

/// Whether two pairs would make the same connection (RFC 8445 §6.1.2.4): from one base, to one address.
fn is_redundant(own: &LocalCandidate, other: &Candidate, with: &LocalCandidate, and: &Candidate) -> bool {
    let is_so = |one: &LocalCandidate| one.candidate.tcp_type == TcpType::SimultaneousOpen;
    let is_relayed = |one: &LocalCandidate| one.candidate.kind == CandidateKind::Relayed;
    let has_base = is_so(own) || is_relayed(own);
    let is_same_source = if has_base { own.base == with.base } else { own.base.ip() == with.base.ip() };
    is_so(own) == is_so(with)
        && is_relayed(own) == is_relayed(with)
        && (own.candidate.tcp_type == TcpType::Passive) == (with.candidate.tcp_type == TcpType::Passive)
        && is_same_source
        && other.addr == and.addr
}

/// Which of two local candidates with one base stands for the pair: the one on the peer's side of the NAT, then the better.
fn ranks_before(own: &LocalCandidate, known: &LocalCandidate, other: &Candidate) -> bool {
    let rank = |one: &LocalCandidate| (one.candidate.kind == other.kind, one.candidate.priority);
    rank(own) > rank(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 8;

    fn remote(kind: CandidateKind, tcp_type: TcpType, addr: &str) -> Candidate {
        Candidate::new(kind, tcp_type, addr.parse().unwrap(), 1)
    }

    fn local(kind: CandidateKind, tcp_type: TcpType, addr: &str, base: &str) -> LocalCandidate {
        LocalCandidate { candidate: remote(kind, tcp_type, addr), base: base.parse().unwrap() }
    }

    fn host(addr: &str) -> [LocalCandidate; 3] {
        [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen]
            .map(|tcp_type| local(CandidateKind::Host, tcp_type, addr, addr))
    }

    fn found(local: &[LocalCandidate], remote: &[Candidate]) -> Vec<(TcpType, String, String)> {
        let pairs = Checklist::default().missing(Stream::Direct, local, remote, Role::Controlling);
        pairs
            .iter()
            .map(|(own, other)| (own.candidate.tcp_type, own.candidate.addr.to_string(), other.addr.to_string()))
            .collect()
    }

    #[test]
    fn active_goes_with_passive_and_so_with_so_and_nothing_else() {
        let remote = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen]
            .map(|tcp_type| remote(CandidateKind::Host, tcp_type, "203.0.113.9:5"));
        let pair = |tcp_type| (tcp_type, "192.0.2.1:4".to_owned(), "203.0.113.9:5".to_owned());
        assert_eq!(found(&host("192.0.2.1:4"), &remote), [pair(TcpType::Active), pair(TcpType::SimultaneousOpen)]);
        assert_eq!(found(&host("[2001:db8::1]:4"), &remote), []);
    }

    #[test]
    fn a_reflexive_candidate_and_its_base_make_one_pair_which_is_named_as_the_peer_sees_it() {
        let mut own = host("192.168.1.2:4").to_vec();
        own.push(local(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, "192.0.2.1:700", "192.168.1.2:4"));
        let theirs = [remote(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, "203.0.113.9:5")];
        let named = (TcpType::SimultaneousOpen, "192.0.2.1:700".to_owned(), "203.0.113.9:5".to_owned());
        assert_eq!(found(&own, &theirs), [named]);
    }

    #[test]
    fn nothing_is_opened_within_a_house_where_it_is_accepted() {
        let so = remote(CandidateKind::Host, TcpType::SimultaneousOpen, "192.168.1.3:4");
        let passive = remote(CandidateKind::Host, TcpType::Passive, "192.168.1.3:4");
        let types =
            |remote: &[Candidate]| found(&host("192.168.1.2:4"), remote).iter().map(|one| one.0).collect::<Vec<_>>();
        assert_eq!(types(&[so, passive]), [TcpType::Active]);
        assert_eq!(types(&[so]), [TcpType::SimultaneousOpen]);
    }

    #[test]
    fn each_stream_has_pairs_of_its_own() {
        let mut own = host("192.0.2.1:4").to_vec();
        own.extend(
            [TcpType::Active, TcpType::Passive]
                .map(|tcp_type| local(CandidateKind::Relayed, tcp_type, "203.0.113.1:50000", "203.0.113.1:50000")),
        );
        let theirs = [
            remote(CandidateKind::Host, TcpType::Passive, "203.0.113.9:5"),
            remote(CandidateKind::Relayed, TcpType::Passive, "203.0.113.2:50000"),
            remote(CandidateKind::Relayed, TcpType::SimultaneousOpen, "203.0.113.2:50000"),
        ];
        let pairs = |stream| {
            let pairs = Checklist::default().missing(stream, &own, &theirs, Role::Controlling);
            let kinds = pairs.iter().map(|(own, other)| (own.candidate.kind, other.kind, own.candidate.tcp_type));
            kinds.collect::<Vec<_>>()
        };
        let (host, relayed, active) = (CandidateKind::Host, CandidateKind::Relayed, TcpType::Active);
        assert_eq!(pairs(Stream::Direct), [(host, host, active)]);
        // Through one relay, the peer's or this side's, before two.
        let mut found = pairs(Stream::Relayed);
        found.sort();
        assert_eq!(found, [(host, relayed, active), (relayed, host, active), (relayed, relayed, active)]);
    }

    #[test]
    fn a_relay_is_a_source_of_its_own_also_on_the_host_that_uses_it() {
        let mut own = host("192.0.2.1:4").to_vec();
        own.push(local(CandidateKind::Relayed, TcpType::Active, "192.0.2.1:50000", "192.0.2.1:50000"));
        own.push(local(CandidateKind::Relayed, TcpType::Active, "192.0.2.1:50001", "192.0.2.1:50001"));
        let theirs = [remote(CandidateKind::Relayed, TcpType::Passive, "203.0.113.2:50000")];
        assert_eq!(Checklist::default().missing(Stream::Relayed, &own, &theirs, Role::Controlling).len(), 3);
    }

    #[test]
    fn a_node_does_not_pair_with_its_own_address() {
        let remote = [remote(CandidateKind::Host, TcpType::Passive, "192.168.1.2:4")];
        assert_eq!(found(&host("192.168.1.2:4"), &remote), []);
    }

    fn add(list: &mut Checklist, addr: &str, preference: u16, limit: usize) -> Option<PairId> {
        let other = Candidate::new(CandidateKind::Host, TcpType::Passive, addr.parse().unwrap(), preference);
        list.add(Pair::new(host("192.0.2.1:4")[0], other, Way::Active), Role::Controlling, limit)
    }

    #[test]
    fn the_first_pair_of_each_foundation_goes_before_the_others() {
        let mut list = Checklist::default();
        let first = add(&mut list, "203.0.113.9:1", 9, LIMIT);
        let alike = add(&mut list, "203.0.113.9:2", 8, LIMIT);
        let other = add(&mut list, "203.0.113.10:1", 7, LIMIT);
        let mut order = Vec::new();
        while let Some(id) = list.next_waiting(Role::Controlling, |_| true) {
            list.mark_tried(id);
            list.get_mut(id).unwrap().state = PairState::InProgress;
            order.push(Some(id));
        }
        assert_eq!(order, [first, other, alike]);
    }

    #[test]
    fn a_full_list_takes_better_pairs_in_the_place_of_the_worst_that_waits() {
        let mut list = Checklist::default();
        let worst = add(&mut list, "203.0.113.9:1", 1, 2).unwrap();
        let tried = add(&mut list, "203.0.113.9:2", 2, 2).unwrap();
        list.get_mut(tried).unwrap().state = PairState::InProgress;
        assert_eq!(add(&mut list, "203.0.113.9:3", 0, 2), None);
        assert!(add(&mut list, "203.0.113.9:4", 3, 2).is_some());
        assert!(list.get(worst).is_none() && list.get(tried).is_some());
        assert_eq!(list.reports(Role::Controlling).len(), 2);
    }

    #[test]
    fn many_addresses_inside_do_not_keep_out_the_one_outside() {
        let mut list = Checklist::default();
        let inside: Vec<_> = (1..=4).filter_map(|host| add(&mut list, &format!("10.0.0.{host}:1"), 9, 4)).collect();
        let outer = remote(CandidateKind::ServerReflexive, TcpType::Passive, "203.0.113.9:5");
        let outer = Pair::new(host("192.0.2.1:4")[0], outer, Way::Active);

        let added = list.add(outer, Role::Controlling, 4).expect("it is one of its kind");

        assert_eq!(inside.iter().filter(|id| list.get(**id).is_some()).count(), 3);
        for host in 5..=8 {
            add(&mut list, &format!("10.0.0.{host}:1"), 10, 4);
        }
        assert!(list.get(added).is_some(), "nor do better ones drive it out");
    }
}
