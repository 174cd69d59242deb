use super::*;

const TIMING: Timing =
    Timing { round_trip: Duration::from_millis(100), patience: Duration::from_millis(300), unheard: Duration::ZERO };
const LONG: Duration = Duration::from_secs(3);

/// One side's turns, and its time.
struct Side {
    opening: Opening,
    now: Instant,
}

impl Side {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the first one")]
    fn new(plan: Plan, can_open: (bool, bool)) -> Self {
        let now = Instant::now();
        let opening = Opening::new(plan, can_open, &Config::default(), Duration::ZERO, TIMING, now);
        Self { opening, now }
    }

    fn first() -> Self {
        Self::new(Plan::Alternate { ours_first: true }, (true, true))
    }

    fn second() -> Self {
        Self::new(Plan::Alternate { ours_first: false }, (true, true))
    }

    fn step(&mut self) -> Option<OpeningStep> {
        self.opening.step(self.now, TIMING, |around| around)
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn opens(&mut self) -> (u8, u8) {
        let Some(OpeningStep::Open { ttl }) = self.step() else { panic!("does not open: {:?}", self.opening) };
        self.opening.opened();
        let Some(OpeningStep::TellOpened { round, ttl: told }) = self.step() else { panic!("does not tell") };
        assert_eq!((told, self.step()), (ttl, None));
        (round, ttl)
    }

    fn fails(&mut self, failure: ConnectFailure) -> &mut Self {
        self.opening.attempt_failed(self.now, TIMING, failure);
        self
    }

    fn hears(&mut self, round: u8, ttl: u8) -> Option<OpeningStep> {
        self.opening.peer_opened(self.now, TIMING, round, ttl, false).unwrap()
    }
}

#[test]
fn two_sides_open_in_turns_with_greater_and_greater_ttls_and_then_cross() {
    let (mut side, mut other) = (Side::first(), Side::second());
    let mut told = Vec::new();
    for _ in 0..8 {
        let (round, ttl) = side.opens();
        told.push((round, ttl));
        assert_eq!(other.hears(round, ttl), Some(OpeningStep::Connect));
        assert_eq!(other.opening.strategy(), Strategy::OpenedByPeer { ttl });
        assert_eq!(side.opening.strategy(), Strategy::OpenedHere { ttl });
        other.fails(ConnectFailure::Refused);
        std::mem::swap(&mut side, &mut other);
    }
    assert_eq!(told, [(0, 2), (1, 2), (2, 3), (3, 3), (4, 4), (5, 4), (6, 5), (7, 5)]);
    assert_eq!(side.step(), Some(OpeningStep::TellCross { round: 8, after: TIMING.round_trip / 2 }));
    assert_eq!(side.step(), None);
    assert_eq!(side.wait(TIMING.round_trip / 2).step(), Some(OpeningStep::Connect));
    assert_eq!(side.opening.strategy(), Strategy::Crossing);
}

#[test]
fn sides_that_cannot_open_cross_a_few_times_and_give_up() {
    let mut side = Side::new(Plan::Alternate { ours_first: true }, (false, false));
    let mut other = Side::new(Plan::Alternate { ours_first: false }, (false, false));
    for _ in 0..Config::default().crossings {
        let Some(OpeningStep::TellCross { round, .. }) = side.step() else { panic!("does not cross") };
        assert_eq!(other.opening.peer_crosses(other.now, TIMING, round, false), Ok(Some(OpeningStep::Connect)));
        other.fails(ConnectFailure::Refused);
        std::mem::swap(&mut side, &mut other);
    }
    assert_eq!(side.step(), Some(OpeningStep::GiveUp));
}

#[test]
fn a_plain_syn_that_nobody_answers_is_kept_as_an_opened_way() {
    let mut side = Side::second();
    assert_eq!(side.hears(0, 2), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::TellOpened { round: 1, ttl: PLAIN_TTL }));
    assert_eq!(side.opening.strategy(), Strategy::Crossing);
    let mut other = Side::first();
    other.opens();
    assert_eq!(other.hears(1, PLAIN_TTL), Some(OpeningStep::Connect));
}

#[test]
fn a_plain_syn_is_kept_once_and_costs_no_ttl() {
    let mut side = Side::second();
    assert_eq!(side.hears(0, 2), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Refused).opens(), (1, 2));
    assert_eq!(side.hears(2, 3), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::TellOpened { round: 3, ttl: PLAIN_TTL }));
    for (heard, opened) in [(4, (5, 3)), (6, (7, 4)), (8, (9, 5))] {
        assert_eq!(side.hears(heard, 3), Some(OpeningStep::Connect));
        assert_eq!(side.wait(LONG).opens(), opened);
    }
}

#[test]
fn where_nothing_is_ever_answered_greater_ttls_are_of_no_use() {
    let mut side = Side::second();
    assert_eq!(side.hears(0, 2), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::TellOpened { round: 1, ttl: PLAIN_TTL }));
    assert_eq!(side.hears(2, PLAIN_TTL), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).opens(), (3, 2));
    assert_eq!(side.hears(4, 2), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::GiveUp));
}

#[test]
fn a_ttl_that_went_too_far_is_not_tried_again() {
    let mut side = Side::first();
    side.opens();
    assert_eq!(side.hears(1, 2), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Refused).opens(), (2, 3));
    side.fails(ConnectFailure::Refused);
    assert_eq!(side.hears(3, 3), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Refused).opens(), (4, 2));
    side.fails(ConnectFailure::Refused);
    assert_eq!(side.hears(5, 4), Some(OpeningStep::Connect));
    assert!(matches!(side.fails(ConnectFailure::Refused).step(), Some(OpeningStep::TellCross { round: 6, .. })));
}

#[test]
fn a_repeated_syn_that_is_refused_says_nothing_about_the_ttl() {
    let mut side = Side::first();
    side.opens();
    side.wait(Duration::from_secs(1)).fails(ConnectFailure::Refused);
    assert_eq!(side.hears(1, 2), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Refused).opens(), (2, 3));
}

#[test]
fn a_system_that_cannot_open_after_all_crosses_in_the_same_round() {
    let mut side = Side::first();
    assert_eq!(side.step(), Some(OpeningStep::Open { ttl: 2 }));
    side.fails(ConnectFailure::Unsupported);
    assert!(matches!(side.step(), Some(OpeningStep::TellCross { round: 0, .. })));
}

#[test]
fn a_port_that_is_in_use_is_waited_for() {
    let mut side = Side::first();
    for _ in 0..MAX_BUSY_TURNS {
        assert_eq!(side.step(), Some(OpeningStep::Open { ttl: 2 }));
        assert_eq!(side.fails(ConnectFailure::AddrInUse).step(), None);
        side.wait(TIMING.patience);
    }
    assert_eq!(side.step(), Some(OpeningStep::Open { ttl: 2 }));
    assert!(matches!(side.fails(ConnectFailure::AddrInUse).step(), Some(OpeningStep::TellCross { round: 0, .. })));
}

#[test]
fn for_a_peer_whose_port_cannot_be_foretold_only_this_side_opens() {
    let mut side = Side::new(Plan::Here, (true, false));
    let mut told = Vec::new();
    while told.len() < 4 {
        told.push(side.opens());
        assert!(side.opening.lets_in_any_port());
        side.wait(LONG);
    }
    assert_eq!(told, [(0, 2), (1, 3), (2, 4), (3, 5)]);
    assert_eq!(side.step(), Some(OpeningStep::GiveUp));
}

#[test]
fn a_side_whose_port_cannot_be_foretold_connects_when_told_and_gives_up_in_silence() {
    let mut side = Side::new(Plan::There, (true, true));
    assert_eq!(side.step(), None);
    assert_eq!(side.hears(0, 2), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Refused).step(), None);
    assert_eq!(side.hears(1, 3), Some(OpeningStep::Connect));
    assert_eq!(side.wait(LONG).step(), None);
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::GiveUp));
}

#[test]
fn a_silent_peer_is_waited_for_no_more_than_twice() {
    let mut side = Side::first();
    assert_eq!(side.opens(), (0, 2));
    assert_eq!(side.wait(LONG).opens(), (2, 3));
    assert_eq!(side.wait(LONG).opens(), (4, 4));
    assert_eq!(side.wait(LONG).step(), Some(OpeningStep::GiveUp));
}

#[test]
fn an_exhausted_peer_is_not_waited_for_at_all() {
    let mut side = Side::first();
    side.opens();
    side.opening.peer_is_exhausted();
    assert_eq!(side.step(), Some(OpeningStep::GiveUp));
    assert_eq!(side.opening.due_at(), None);
}

#[test]
fn rounds_only_grow_and_end() {
    let mut side = Side::second();
    assert_eq!(side.hears(4, 4), Some(OpeningStep::Connect));
    assert_eq!((side.hears(4, 4), side.hears(0, 2)), (None, None));
    let beyond = side.opening.peer_opened(side.now, TIMING, MAX_ROUNDS, 2, false);
    assert_eq!(beyond, Err(SignalError::Round { got: MAX_ROUNDS, limit: MAX_ROUNDS }));
}

#[test]
fn of_two_sides_that_take_the_same_round_one_gives_way() {
    let mut side = Side::first();
    side.opens();
    assert_eq!(side.opening.peer_opened(side.now, TIMING, 0, 2, false), Ok(None));
    assert_eq!(side.opening.peer_opened(side.now, TIMING, 0, 2, true), Ok(Some(OpeningStep::Connect)));
}

#[test]
fn a_connection_ends_the_turns_and_its_loss_resumes_them() {
    let mut side = Side::first();
    side.opens();
    assert_eq!(side.opening.connected(), Strategy::OpenedHere { ttl: 2 });
    assert_eq!((side.wait(LONG).step(), side.hears(1, 2)), (None, None));
    side.opening.lost(side.now, TIMING);
    assert_eq!(side.opens(), (2, 3));
}

#[test]
fn where_there_is_no_route_nothing_is_tried_for_long() {
    let mut side = Side::second();
    assert_eq!(side.hears(0, 2), Some(OpeningStep::Connect));
    side.fails(ConnectFailure::Unreachable);
    side.opens();
    assert_eq!(side.hears(2, 3), Some(OpeningStep::Connect));
    assert_eq!(side.fails(ConnectFailure::Unreachable).step(), Some(OpeningStep::GiveUp));
}

#[test]
fn turns_of_a_peer_that_has_not_heard_of_this_side_are_not_over_until_it_can_have() {
    let unheard = Timing { unheard: Duration::from_secs(4), ..TIMING };
    let mut side = Side::first();
    side.opening.step(side.now, unheard, |around| around).unwrap();
    side.opening.opened();
    side.opening.step(side.now, unheard, |around| around).unwrap();
    assert_eq!(side.wait(LONG).step(), None, "what this side has said may be on its way still");

    side.opening.peer_is_heard(side.now, TIMING);
    assert_eq!(side.opening.due_at(), Some(side.now + side.opening.answer_time(TIMING)));
    assert!(side.wait(LONG).step().is_some(), "then it was silent for a turn");
}

#[test]
fn on_a_long_way_a_lost_syn_has_the_time_to_be_repeated() {
    let long = Timing { round_trip: Duration::from_millis(800), ..TIMING };
    let mut side = Side::second();
    let connecting = side.opening.peer_opened(side.now, long, 0, 2, false);
    assert_eq!(connecting, Ok(Some(OpeningStep::Connect)));
    let until = side.opening.due_at().unwrap();
    assert!(until >= side.now + SYN_TIMEOUT + long.round_trip, "the answer to the second SYN comes in time");
    assert!(TIMING.connecting() < SYN_TIMEOUT, "on a short way the next turn comes sooner");
}
