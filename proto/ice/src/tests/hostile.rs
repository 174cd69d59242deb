//! Peers that lie, flood, or say nothing: one connection at most is selected, limits hold, and the agent ends.

use std::{net::SocketAddr, time::Duration};

use super::{
    pair::Scene,
    rng::{Rng, seeds},
    solo::{HERE, Solo, THERE, addr, description, passive},
    topology::{Place, Topology},
};
use crate::{
    Config, ConnId, ConnectFailure, FailureReason, MAX_SIGNALLED_CANDIDATES, OpenTurn, Output, Priority, Role, Signal,
    candidate::{Candidate, CandidateKind, TcpType},
    messages::{AnswerOutcome, Check},
    tests::driver::Ended,
};

/// A connection that the peer makes and checks, and on which it answers the agent's check.
fn proven(solo: &mut Solo, from_port: u16) -> ConnId {
    let since = solo.outputs.len();
    let conn = solo.accept(from_port).expect("within limits");
    solo.check(conn, false);
    solo.answer(conn, since);
    conn
}

#[test]
fn a_peer_that_nominates_twice_gets_the_first_connection_only() {
    let mut solo = Solo::new(Role::Controlled);
    let first = proven(&mut solo, 1001);
    let second = proven(&mut solo, 1002);
    solo.check(first, true);
    solo.check(second, true);
    solo.wait_for_the_end();
    let selected: Vec<ConnId> = solo.selected().iter().map(|selected| selected.conn).collect();
    assert_eq!(selected, [first]);
    assert!(solo.closed().contains(&second));
    assert_eq!(solo.afterwards(), Vec::<&Output>::new());
}

#[test]
fn a_controlled_peer_that_nominates_decides_nothing() {
    let mut solo = Solo::with_remote(Role::Controlling, description(Vec::new()));
    let conn = solo.accept(1001).unwrap();
    solo.check(conn, true);
    assert!(solo.selected().is_empty());
}

#[test]
fn the_raw_connection_is_handed_over_right_behind_the_last_answer() {
    let mut solo = Solo::new(Role::Controlled);
    let conn = proven(&mut solo, 1001);
    solo.check(conn, true);
    let handed_over = solo.outputs.iter().position(|output| matches!(output, Output::Selected(_))).unwrap();
    let last_sent = solo.outputs.iter().rposition(|output| matches!(output, Output::Send { .. })).unwrap();
    assert!(last_sent < handed_over);
    assert!(matches!(solo.answers().last(), Some(Some(AnswerOutcome::Success { .. }))));
}

#[test]
fn a_check_with_a_wrong_password_proves_nothing() {
    let mut solo = Solo::new(Role::Controlled);
    let conn = solo.accept(1001).unwrap();
    let says = Check { priority: Priority::LEAST, role: Some((Role::Controlling, 5)), nominates: true };
    solo.check_as(conn, says, b'x');
    solo.wait_for_the_end();
    assert!(solo.selected().is_empty());
    assert_eq!(solo.failed().len(), 1);
    assert_eq!(solo.agent.counters().unauthentic, 1);
    assert!(solo.answers().iter().all(|answer| !matches!(answer, Some(AnswerOutcome::Success { .. }))));
    assert!(solo.closed().contains(&conn));
}

#[test]
fn accepted_connections_that_show_nothing_are_bounded_and_closed_in_time() {
    let config = Config::default();
    let mut solo = Solo::new(Role::Controlled);
    let accepted: Vec<ConnId> = (1..1000).filter_map(|port| solo.accept(port)).collect();
    assert!((1..=config.max_unproven).contains(&accepted.len()), "{} were accepted", accepted.len());
    assert_eq!(solo.agent.counters().over_limit, 999 - accepted.len() as u64);
    solo.wait(config.first_check_timeout);
    assert!(accepted.iter().all(|conn| solo.closed().contains(conn)));
}

#[test]
fn a_peer_that_accepts_and_says_nothing_fails_the_negotiation_in_time() {
    let mut solo = Solo::new(Role::Controlling);
    solo.wait(Duration::from_millis(100));
    for (conn, _) in solo.connects() {
        solo.tell(|agent, now| agent.connected(now, conn, addr(HERE)));
    }
    solo.wait_for_the_end();
    assert_eq!((solo.selected().len(), solo.failed().len()), (0, 1));
    assert!(solo.connects().iter().all(|(conn, _)| solo.closed().contains(conn)));
    assert_eq!(solo.agent.poll_timeout(), None);
}

#[test]
fn no_answer_at_all_fails_the_negotiation_in_time() {
    for role in [Role::Controlling, Role::Controlled] {
        let undescribed = Solo::undescribed(role);
        assert_eq!(undescribed.agent.poll_timeout(), None, "before the description, waiting is the caller's");
        let mut solo = Solo::new(role);
        solo.wait_for_the_end();
        assert_eq!(solo.failed().len(), 1);
        assert_eq!(solo.afterwards(), Vec::<&Output>::new());
    }
}

#[test]
fn garbage_closes_its_connection_and_harms_no_other() {
    let mut rng = Rng::new(5);
    let mut solo = Solo::new(Role::Controlled);
    let good = proven(&mut solo, 1001);
    for port in 2000..2100 {
        let Some(conn) = solo.accept(port) else { continue };
        let length = usize::try_from(rng.below(120)).unwrap();
        let garbage: Vec<u8> = (0..length).map(|_| rng.bytes()[0]).collect();
        solo.tell(|agent, now| agent.received(now, conn, &garbage));
        assert!(solo.closed().contains(&conn));
    }
    solo.check(good, true);
    assert_eq!(solo.selected().len(), 1);
}

#[test]
fn a_thousand_candidates_lead_to_a_bounded_number_of_attempts() {
    let config = Config::default();
    let ports = |range: std::ops::Range<u16>| -> Vec<Candidate> {
        range.map(|port| passive(&format!("203.0.113.7:{port}"))).collect()
    };
    let mut remote = description(ports(1..1001));
    remote.complete = false;
    let mut solo = Solo::undescribed(Role::Controlling);
    let _ = solo.tell(|agent, now| agent.set_remote(now, remote));
    for batch in 1..100 {
        let signal = Signal::Candidates { candidates: ports(batch * 100..batch * 100 + 100), complete: false };
        assert!(solo.tell(|agent, now| agent.handle_signal(now, signal)).is_err(), "batch {batch}");
    }
    let mut told = 0;
    for _ in 0..200 {
        solo.wait(Duration::from_millis(50));
        let connects = solo.connects();
        for (conn, _) in &connects[told..] {
            solo.tell(|agent, now| agent.connect_failed(now, *conn, ConnectFailure::Refused));
        }
        told = connects.len();
    }
    assert_eq!(solo.failed().len(), 1);
    assert!(solo.agent.pairs().len() <= config.max_pairs);
    let tried: std::collections::BTreeSet<SocketAddr> = solo.connects().iter().map(|(_, remote)| *remote).collect();
    assert!(tried.len() <= MAX_SIGNALLED_CANDIDATES, "{} ports of a third host were tried", tried.len());
    assert!(solo.connects().len() <= config.max_attempts);
}

#[test]
fn few_ports_of_a_host_that_does_not_answer_are_tried_at_once() {
    /// RFC 6544 §12.
    const AT_ONCE: usize = 5;
    let candidates = (1..=20).map(|port| passive(&format!("203.0.113.7:{port}"))).collect();
    let mut solo = Solo::with_remote(Role::Controlling, description(candidates));
    solo.wait(Config::default().connect_timeout - Duration::from_millis(1));
    assert_eq!(solo.connects().len(), AT_ONCE);

    let (conn, _) = solo.connects()[0];
    solo.tell(|agent, now| agent.connect_failed(now, conn, ConnectFailure::Refused));

    assert_eq!(solo.connects().len(), AT_ONCE + 1);
}

#[test]
fn floods_of_signals_are_refused_and_cause_a_bounded_number_of_attempts() {
    let mut rng = Rng::new(9);
    let so = Candidate::new(CandidateKind::Host, TcpType::SimultaneousOpen, addr(THERE), 0);
    let mut solo = Solo::with_remote(Role::Controlled, description(vec![so]));
    for number in 0..5000_u32 {
        let turn = OpenTurn {
            round: u8::try_from(rng.below(256)).unwrap(),
            sender: addr(if number % 3 == 0 { THERE } else { "203.0.113.9:22" }),
            receiver: addr(HERE),
            ttl: u8::try_from(rng.below(256)).unwrap(),
        };
        let signal = if rng.one_in(2) {
            Signal::Opened(turn)
        } else {
            Signal::Cross { turn, after: Duration::from_nanos(rng.next()) }
        };
        let _ = solo.tell(|agent, now| agent.handle_signal(now, signal));
        if number % 100 == 0 {
            solo.wait(Duration::from_millis(100));
        }
    }
    solo.wait_for_the_end();
    assert!(solo.connects().iter().all(|(_, remote)| *remote == addr(THERE)), "a third host was connected to");
    assert!(solo.connects().len() <= 64, "{} attempts", solo.connects().len());
    assert!(solo.agent.counters().signals_refused > 4000);
    assert_eq!(solo.failed().len(), 1);
}

#[test]
fn a_peer_that_insists_on_a_role_conflict_does_not_keep_the_agent_busy() {
    let mut solo = Solo::new(Role::Controlling);
    for port in 1..40 {
        let Some(conn) = solo.accept(port) else { continue };
        for tie_breaker in [0, u64::MAX, 0, u64::MAX] {
            for role in [Role::Controlling, Role::Controlled] {
                solo.check_as(
                    conn,
                    Check { priority: Priority::LEAST, role: Some((role, tie_breaker)), nominates: false },
                    b'a',
                );
            }
        }
    }
    assert!(solo.outputs.len() < 2000, "{} outputs", solo.outputs.len());
    solo.wait_for_the_end();
    assert_eq!(solo.failed().len() + solo.selected().len(), 1);
}

#[test]
fn two_sides_of_the_same_role_come_to_an_agreement() {
    for role in [Role::Controlling, Role::Controlled] {
        let topology = Topology::apart(Place::public(), Place::public());
        let mut scene = Scene::new(topology, Duration::from_millis(20));
        scene.roles = [role; 2];
        let outcome = scene.run();
        assert!(matches!(outcome.ended, [Ended::Selected(_), Ended::Selected(_)]), "{outcome:?}");
        assert_eq!(outcome.faults, Vec::<String>::new());
    }
}

#[test]
fn a_side_that_was_told_a_wrong_password_is_not_connected_with() {
    let topology = Topology::apart(Place::public(), Place::public());
    let mut scene = Scene::new(topology, Duration::from_millis(20));
    scene.wrong_password = true;
    let outcome = scene.run();
    assert!(matches!(outcome.ended, [Ended::Failed(_), Ended::Failed(_)]), "{outcome:?}");
    assert_eq!(outcome.faults, Vec::<String>::new());
}

#[test]
fn a_host_that_has_gone_fails_the_negotiation_on_the_other_side() {
    let topology = Topology::apart(Place::public(), Place::public());
    let mut scene = Scene::new(topology, Duration::from_millis(20));
    scene.silent = true;
    let outcome = scene.run();
    assert!(matches!(outcome.ended, [Ended::Failed(_), Ended::Failed(_)]), "{outcome:?}");
    assert_eq!(outcome.faults, Vec::<String>::new());
}

#[test]
fn nothing_comes_out_after_the_end_whatever_comes_in() {
    let mut solo = Solo::new(Role::Controlled);
    let (first, second) = (proven(&mut solo, 1001), proven(&mut solo, 1002));
    solo.check(first, true);
    assert_eq!(solo.selected().len(), 1);
    solo.check(second, true);
    solo.check(first, true);
    assert_eq!(solo.accept(1003), None);
    let turn = OpenTurn { round: 0, sender: addr(THERE), receiver: addr(HERE), ttl: 2 };
    let _ = solo.tell(|agent, now| agent.handle_signal(now, Signal::Opened(turn)));
    solo.tell(|agent, now| agent.closed(now, second));
    solo.wait_for_the_end();
    assert_eq!(solo.afterwards(), Vec::<&Output>::new());
    assert_eq!(solo.agent.poll_timeout(), None);
}

#[test]
fn any_sequence_of_inputs_ends_and_stays_within_limits() {
    for seed in seeds(0, 300) {
        let mut rng = Rng::new(seed);
        let role = rng.pick(&[Role::Controlling, Role::Controlled]);
        let mut solo = Solo::new(role);
        for _ in 0..200 {
            random_input(&mut solo, &mut rng);
        }
        solo.wait_for_the_end();
        assert_eq!(solo.selected().len() + solo.failed().len(), 1, "seed {seed}");
        assert_eq!(solo.afterwards(), Vec::<&Output>::new(), "seed {seed}");
        assert!(solo.connects().len() <= Config::default().max_attempts, "seed {seed}");
        assert!(solo.outputs.len() <= 3000, "seed {seed}: {} outputs", solo.outputs.len());
    }
}

fn random_input(solo: &mut Solo, rng: &mut Rng) {
    let conn = ConnId(rng.below(30));
    let role = Some((rng.pick(&[Role::Controlling, Role::Controlled]), rng.next()));
    let says = Check { priority: Priority::LEAST, role, nominates: rng.one_in(4) };
    let turn = OpenTurn {
        round: u8::try_from(rng.below(20)).unwrap(),
        sender: addr(rng.pick(&[THERE, HERE, "203.0.113.9:22"])),
        receiver: addr(rng.pick(&[HERE, THERE])),
        ttl: 2,
    };
    let since = solo.outputs.len().saturating_sub(8);
    match rng.below(14) {
        0 => drop(solo.accept(u16::try_from(rng.below(60_000)).unwrap())),
        1 => solo.check_as(conn, says, b'a'),
        2 => solo.check_as(conn, says, b'x'),
        3 => solo.answer(conn, since),
        4 => solo.tell(|agent, now| agent.connected(now, conn, addr(HERE))),
        5 => solo.tell(|agent, now| agent.connect_failed(now, conn, ConnectFailure::Refused)),
        6 => solo.tell(|agent, now| agent.closed(now, conn)),
        7 => solo.tell(|agent, now| agent.opened(now, conn)),
        8 => drop(solo.tell(|agent, now| agent.handle_signal(now, Signal::Opened(turn)))),
        9 => drop(solo.tell(|agent, now| agent.handle_signal(now, Signal::Exhausted))),
        10 => {
            let so = Candidate::new(CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, turn.sender, 1);
            let signal = Signal::Candidates { candidates: vec![so], complete: false };
            let _ = solo.tell(|agent, now| agent.handle_signal(now, signal));
        }
        11 => drop(solo.tell(|agent, now| agent.set_remote(now, description(vec![passive(THERE)])))),
        _ => solo.wait(Duration::from_millis(rng.below(200))),
    }
}

#[test]
fn the_reason_is_told_when_there_is_no_pair() {
    let ipv6 = passive("[2001:db8::1]:4001");
    let mut solo = Solo::with_remote(Role::Controlling, description(vec![ipv6]));
    let turn_of_peer = solo.tell(|agent, now| agent.handle_signal(now, Signal::Exhausted));
    assert_eq!(turn_of_peer, Ok(()));
    solo.wait(Duration::from_secs(3));
    assert_eq!(solo.failed(), [FailureReason::NoPairs]);
}
