mod simulation;

use super::*;

const A: ProviderId = ProviderId(1);
const B: ProviderId = ProviderId(2);

fn start() -> Instant {
    // Only differences count: any moment will do.
    #[allow(clippy::disallowed_methods)]
    Instant::now()
}

fn config() -> ScheduleConfig {
    ScheduleConfig { min_split: 10, max_providers: 3, ..ScheduleConfig::default() }
}

fn drain(schedule: &mut Schedule) -> Vec<ScheduleOutput> {
    std::iter::from_fn(|| match schedule.poll_output() {
        ScheduleOutput::Timeout(_) => None,
        output => Some(output),
    })
    .collect()
}

/// Takes in what must be fine, and gives what comes out.
fn tell(schedule: &mut Schedule, now: Instant, input: ScheduleInput) -> Vec<ScheduleOutput> {
    schedule.handle_input(now, input).unwrap();
    drain(schedule)
}

fn request(provider: ProviderId, number: u64, ranges: Range<u64>) -> ScheduleOutput {
    ScheduleOutput::Request { provider, request: RequestId(number), ranges: ranges.into() }
}

fn shorten(provider: ProviderId, number: u64, end_unit: u64) -> ScheduleOutput {
    ScheduleOutput::Shorten { provider, request: RequestId(number), end_unit }
}

fn verified(provider: ProviderId, units: Range<u64>) -> ScheduleInput {
    ScheduleInput::Verified { provider, units }
}

fn planned(total_units: u64) -> ScheduleInput {
    ScheduleInput::Planned { total_units, have: UnitRanges::empty() }
}

/// A schedule in which A was asked for everything, of 100 units.
fn one_provider(now: Instant) -> Schedule {
    let mut schedule = Schedule::new(config());
    tell(&mut schedule, now, ScheduleInput::ProviderAdded(A));
    tell(&mut schedule, now, planned(100));
    schedule
}

#[test]
fn a_provider_that_moves_ends_its_request_where_it_is_and_is_asked_for_the_rest() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, verified(A, 0..40));

    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderMoved(A)), [shorten(A, 0, 0)]);
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderMoved(A)), [], "once is enough");
    assert_eq!(tell(&mut schedule, now, verified(A, 40..41)), [], "the unit that it was at still counts");
    let ended = ScheduleInput::RequestEnded { provider: A, request: RequestId(0) };
    assert_eq!(tell(&mut schedule, now, ended), [request(A, 1, 41..100)]);
}

#[test]
fn a_provider_that_is_asked_for_nothing_or_gone_moves_without_a_word() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, ScheduleInput::ItemRefused { provider: A, units: 0..100 });
    tell(&mut schedule, now, ScheduleInput::RequestEnded { provider: A, request: RequestId(0) });
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderMoved(A)), []);
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderMoved(B)), []);
}

#[test]
fn one_provider_is_asked_once_for_everything_before_anything_is_known() {
    let now = start();
    let mut schedule = Schedule::new(config());
    assert_eq!(schedule.poll_output(), ScheduleOutput::Timeout(None));
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(A)), [request(A, 0, 0..OPEN_END)]);
    assert_eq!(tell(&mut schedule, now, verified(A, 0..1)), []);
    assert_eq!(tell(&mut schedule, now, planned(3)), []);
    assert_eq!(tell(&mut schedule, now, verified(A, 1..2)), []);
    assert_eq!(tell(&mut schedule, now, verified(A, 2..3)), [ScheduleOutput::Complete]);
    assert_eq!(tell(&mut schedule, now, ScheduleInput::RequestEnded { provider: A, request: RequestId(0) }), []);
    assert_eq!(schedule.poll_output(), ScheduleOutput::Timeout(None));
}

#[test]
fn nothing_is_asked_for_that_is_there() {
    let now = start();
    let mut schedule = Schedule::new(config());
    let have: UnitRanges = [0..50, 60..70].into_iter().collect();
    assert_eq!(tell(&mut schedule, now, ScheduleInput::Planned { total_units: 80, have: have.clone() }), []);
    let ranges = [50..60, 70..80].into_iter().collect();
    let expected = ScheduleOutput::Request { provider: A, request: RequestId(0), ranges };
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(A)), [expected]);
    let mut schedule = Schedule::new(config());
    assert_eq!(tell(&mut schedule, now, ScheduleInput::Planned { total_units: 50, have }), [ScheduleOutput::Complete]);
}

#[test]
fn a_request_is_cut_short_in_front_of_a_long_stretch_that_is_there() {
    let now = start();
    let mut schedule = Schedule::new(config());
    tell(&mut schedule, now, ScheduleInput::ProviderAdded(A));
    let have = [3..5, 20..80].into_iter().collect();
    assert_eq!(tell(&mut schedule, now, ScheduleInput::Planned { total_units: 100, have }), [shorten(A, 0, 20)]);
    tell(&mut schedule, now, verified(A, 0..20));
    let ended = ScheduleInput::RequestEnded { provider: A, request: RequestId(0) };
    assert_eq!(tell(&mut schedule, now, ended), [request(A, 1, 80..100)]);
}

#[test]
fn a_second_provider_takes_the_later_half_and_then_half_of_what_is_left() {
    let now = start();
    let mut schedule = one_provider(now);
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(B)), [shorten(A, 0, 50), request(B, 1, 50..100)]);
    let later = now + Duration::from_secs(1);
    tell(&mut schedule, later, verified(A, 0..10));
    for unit in 50..100 {
        tell(&mut schedule, later, verified(B, unit..unit + 1));
    }
    // B is five times as quick, and takes five sixths of the 40 units that A has left.
    let ended = ScheduleInput::RequestEnded { provider: B, request: RequestId(1) };
    assert_eq!(tell(&mut schedule, later, ended), [shorten(A, 0, 17), request(B, 2, 17..50)]);
}

#[test]
fn what_becomes_free_is_shared_among_all_that_are_idle() {
    let now = start();
    let c = ProviderId(3);
    let mut schedule = one_provider(now);
    let soon = now + Duration::from_millis(1);
    tell(&mut schedule, soon, verified(A, 0..85));
    assert_eq!(tell(&mut schedule, soon, ScheduleInput::ProviderAdded(B)), []);
    assert_eq!(tell(&mut schedule, soon, ScheduleInput::ProviderAdded(c)), []);
    let lost = ScheduleInput::ProviderLost(A);
    assert_eq!(tell(&mut schedule, soon, lost), [request(B, 1, 85..95), request(c, 2, 95..100)]);
}

#[test]
fn a_short_rest_is_left_to_whom_has_it_unless_that_is_slow() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now + Duration::from_millis(100), verified(A, 0..85));
    assert_eq!(tell(&mut schedule, now + Duration::from_millis(100), ScheduleInput::ProviderAdded(B)), []);
    // 15 units at 85 in 100 ms are nothing; at 85 in 30 s they take longer than another request.
    let later = now + Duration::from_secs(30);
    tell(&mut schedule, later, verified(A, 85..86));
    assert_eq!(tell(&mut schedule, later, ScheduleInput::Timeout), [shorten(A, 0, 93), request(B, 1, 93..100)]);
}

#[test]
fn what_a_lost_provider_had_goes_to_another() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, ScheduleInput::ProviderAdded(B));
    tell(&mut schedule, now, verified(A, 0..5));
    tell(&mut schedule, now, ScheduleInput::ProviderLost(A));
    tell(&mut schedule, now, verified(B, 50..100));
    let ended = ScheduleInput::RequestEnded { provider: B, request: RequestId(1) };
    assert_eq!(tell(&mut schedule, now, ended), [request(B, 2, 5..50)]);
}

#[test]
fn a_silent_provider_is_dropped_and_the_schedule_says_that_it_is_stuck() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, verified(A, 0..5));
    let deadline = now + config().stall;
    assert_eq!(schedule.poll_output(), ScheduleOutput::Timeout(Some(deadline)));
    assert_eq!(tell(&mut schedule, deadline - Duration::from_millis(1), ScheduleInput::Timeout), []);
    let missing: UnitRanges = (5..100).into();
    let dropped = ScheduleOutput::Drop { provider: A, why: DropReason::Stalled };
    assert_eq!(tell(&mut schedule, deadline, ScheduleInput::Timeout), [dropped, ScheduleOutput::Stuck { missing }]);
    assert_eq!(tell(&mut schedule, deadline, ScheduleInput::Timeout), []);
    assert_eq!(tell(&mut schedule, deadline, ScheduleInput::ProviderAdded(B)), [request(B, 1, 5..100)]);
}

#[test]
fn a_silent_first_provider_is_passed_over_before_anything_is_known() {
    let now = start();
    let mut schedule = Schedule::new(config());
    tell(&mut schedule, now, ScheduleInput::ProviderAdded(A));
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(B)), []);
    let later = now + config().slow;
    assert_eq!(tell(&mut schedule, later, ScheduleInput::Timeout), [shorten(A, 0, 0), request(B, 1, 0..OPEN_END)]);
}

#[test]
fn a_provider_that_ends_its_requests_without_bringing_anything_is_dropped() {
    let now = start();
    let mut schedule = one_provider(now);
    let ended = |number| ScheduleInput::RequestEnded { provider: A, request: RequestId(number) };
    assert_eq!(tell(&mut schedule, now, ended(0)), [request(A, 1, 0..100)]);
    assert_eq!(tell(&mut schedule, now, ended(1)), [request(A, 2, 0..100)]);
    let outputs = tell(&mut schedule, now, ended(2));
    assert_eq!(outputs[0], ScheduleOutput::Drop { provider: A, why: DropReason::Empty });
    assert!(matches!(outputs[1], ScheduleOutput::Stuck { .. }));
}

#[test]
fn refused_items_are_asked_of_others_only() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, ScheduleInput::ItemRefused { provider: A, units: 0..40 });
    tell(&mut schedule, now, verified(A, 40..100));
    let ended = ScheduleInput::RequestEnded { provider: A, request: RequestId(0) };
    assert_eq!(tell(&mut schedule, now, ended), [ScheduleOutput::Stuck { missing: (0..40).into() }]);
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(B)), [request(B, 1, 0..40)]);
    // A is idle, and is not given the tail of what it has refused.
    assert_eq!(tell(&mut schedule, now + Duration::from_secs(20), ScheduleInput::Timeout), []);
}

#[test]
fn units_that_a_stream_has_passed_over_are_asked_of_another() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now, verified(A, 20..95));
    assert_eq!(tell(&mut schedule, now, ScheduleInput::ProviderAdded(B)), [request(B, 1, 0..20)]);
}

#[test]
fn reports_that_cross_with_a_drop_are_taken_for_what_they_are() {
    let now = start();
    let mut schedule = one_provider(now);
    tell(&mut schedule, now + config().stall, ScheduleInput::Timeout);
    tell(&mut schedule, now, verified(A, 0..100 - 1));
    tell(&mut schedule, now, ScheduleInput::RequestEnded { provider: A, request: RequestId(0) });
    tell(&mut schedule, now, ScheduleInput::ItemRefused { provider: A, units: 0..1 });
    tell(&mut schedule, now, ScheduleInput::ProviderLost(A));
    assert_eq!(schedule.missing(), &UnitRanges::from(99..100));
}

#[test]
fn what_the_driver_should_not_say_is_refused() {
    let now = start();
    let mut schedule = one_provider(now);
    assert_eq!(schedule.handle_input(now, planned(100)), Err(ScheduleError::AlreadyPlanned));
    let beyond = schedule.handle_input(now, verified(A, 99..101));
    assert_eq!(beyond, Err(ScheduleError::OutOfRange { end: 101, total_units: 100 }));
    for provider in [2, 3] {
        schedule.handle_input(now, ScheduleInput::ProviderAdded(ProviderId(provider))).unwrap();
    }
    let one_more = schedule.handle_input(now, ScheduleInput::ProviderAdded(ProviderId(4)));
    assert_eq!(one_more, Err(ScheduleError::TooManyProviders { limit: 3 }));
}

#[test]
fn a_request_never_has_more_ranges_than_the_wire_allows() {
    let now = start();
    let mut schedule = Schedule::new(config());
    let total_units = 4 * MAX_WIRE_RANGES as u64;
    let have = (0..total_units / 2).map(|at| at * 2..at * 2 + 1).collect();
    tell(&mut schedule, now, ScheduleInput::Planned { total_units, have });
    let mut asked = UnitRanges::empty();
    let mut outputs = tell(&mut schedule, now, ScheduleInput::ProviderAdded(A));
    while let [ScheduleOutput::Request { ranges, request, .. }] = &outputs[..] {
        assert!(ranges.iter().len() <= MAX_WIRE_RANGES);
        let request = *request;
        for units in ranges.iter() {
            asked.insert(units.clone());
            drop(tell(&mut schedule, now, verified(A, units)));
        }
        outputs = tell(&mut schedule, now, ScheduleInput::RequestEnded { provider: A, request });
    }
    assert_eq!(asked.total(), total_units / 2);
}

#[test]
fn a_provider_that_is_alive_is_not_dropped_for_bringing_nothing_yet() {
    let now = start();
    let mut schedule = one_provider(now);
    let (stall, almost) = (config().stall, config().stall - Duration::from_secs(1));

    assert_eq!(tell(&mut schedule, now + almost, ScheduleInput::Alive(A)), []);
    assert_eq!(tell(&mut schedule, now + stall, ScheduleInput::Timeout), []);
    let dropped = tell(&mut schedule, now + almost + stall, ScheduleInput::Timeout);

    assert_eq!(dropped[0], ScheduleOutput::Drop { provider: A, why: DropReason::Stalled });
    // One that is gone, or was never there, is no error.
    assert_eq!(tell(&mut schedule, now + almost + stall, ScheduleInput::Alive(A)), []);
}
