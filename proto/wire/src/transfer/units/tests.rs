use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const UNIVERSE: u64 = 40;

fn model(set: &UnitRanges) -> BTreeSet<u64> {
    set.iter().flatten().collect()
}

fn is_canonical(set: &UnitRanges) -> bool {
    let ranges: Vec<_> = set.iter().collect();
    ranges.iter().all(|range| range.start < range.end) && ranges.windows(2).all(|pair| pair[0].end < pair[1].start)
}

fn some_range() -> impl Strategy<Value = Range<u64>> {
    (0..UNIVERSE, 0..10_u64).prop_map(|(start, len)| start..(start + len).min(UNIVERSE))
}

fn some_set() -> impl Strategy<Value = UnitRanges> {
    prop::collection::vec(some_range(), 0..8).prop_map(UnitRanges::from_iter)
}

proptest! {
    #[test]
    fn changes_do_what_they_do_to_a_plain_set(set in some_set(), range in some_range()) {
        let (mut inserted, mut removed) = (set.clone(), set.clone());
        inserted.insert(range.clone());
        removed.remove(range.clone());
        prop_assert!(is_canonical(&inserted) && is_canonical(&removed));
        let units: BTreeSet<u64> = range.clone().collect();
        prop_assert_eq!(model(&inserted), &model(&set) | &units);
        prop_assert_eq!(model(&removed), &model(&set) - &units);
        prop_assert_eq!(set.covers(range.clone()), units.is_subset(&model(&set)));
        prop_assert_eq!(set.intersects(range.clone()), !units.is_disjoint(&model(&set)));
        let sliced: BTreeSet<u64> = (&model(&set) & &units).iter().map(|unit| unit - range.start).collect();
        prop_assert!(is_canonical(&set.slice(range.clone())));
        prop_assert_eq!(model(&set.slice(range)), sliced);
    }

    #[test]
    fn algebra_is_that_of_plain_sets(a in some_set(), b in some_set(), count in 0..UNIVERSE) {
        let [both, rest, either] = [a.intersection(&b), a.difference(&b), a.union(&b)];
        prop_assert!(is_canonical(&both) && is_canonical(&rest) && is_canonical(&either));
        prop_assert_eq!(model(&both), &model(&a) & &model(&b));
        prop_assert_eq!(model(&rest), &model(&a) - &model(&b));
        prop_assert_eq!(model(&either), &model(&a) | &model(&b));
        prop_assert_eq!(a.total(), model(&a).len() as u64);
        prop_assert_eq!(model(&a.first_units(count)), model(&a).into_iter().take(count as usize).collect());
        prop_assert!((0..UNIVERSE).all(|unit| a.contains(unit) == model(&a).contains(&unit)));
    }

    #[test]
    fn decoding_any_list_gives_a_canonical_set_or_an_error(
        list in prop::collection::vec((0..50_u64, 0..50_u64), 0..5),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        if let Ok(set) = codec::decode::<UnitRanges>(&codec::encode(&list), 1000) {
            prop_assert!(is_canonical(&set));
            prop_assert_eq!(codec::encode(&set), codec::encode(&list));
        }
        let _ = codec::decode::<UnitRanges>(&bytes, 1000);
    }

    #[test]
    fn a_set_round_trips(set in some_set()) {
        prop_assert_eq!(codec::decode::<UnitRanges>(&codec::encode(&set), 1000), Ok(set));
    }
}

#[test]
fn empty_unsorted_overlapping_adjacent_and_too_many_ranges_are_refused() {
    let decode = |list: &[(u64, u64)]| codec::decode::<UnitRanges>(&codec::encode(&list), 1 << 20).is_ok();
    assert!(decode(&[]) && decode(&[(0, 5), (6, OPEN_END)]));
    for bad in [&[(5, 5)][..], &[(6, 5)], &[(6, 8), (0, 5)], &[(0, 5), (4, 6)], &[(0, 5), (5, 6)]] {
        assert!(!decode(bad), "{bad:?}");
    }
    let many = |count: u64| (0..count).map(|at| (at * 2, at * 2 + 1)).collect::<Vec<_>>();
    assert!(decode(&many(MAX_WIRE_RANGES as u64)));
    assert!(!decode(&many(MAX_WIRE_RANGES as u64 + 1)));
}

#[test]
fn the_end_of_all_is_no_special_case() {
    let mut set = UnitRanges::all();
    set.remove(10..20);
    assert_eq!(set.iter().collect::<Vec<_>>(), [0..10, 20..OPEN_END]);
    assert_eq!(set.slice(15..30), UnitRanges::from(5..15));
    assert_eq!(set.total(), OPEN_END - 10);
    set.insert(10..20);
    assert_eq!(set, UnitRanges::all());
}
