use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1000;

/// Feeds a stream cut at the given places; gives the bodies.
fn decode_cut(stream: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]).collect();
    ends.sort_unstable();
    let mut decoder = FrameDecoder::new(LIMIT);
    let mut bodies = Vec::new();
    let mut start = 0;
    for end in ends {
        let mut piece = &stream[start..end];
        while !piece.is_empty() {
            bodies.extend(decoder.accept(&mut piece)?);
        }
        start = end;
    }
    decoder.finish()?;
    Ok(bodies)
}

fn encode_all(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    bodies.iter().for_each(|body| encode_frame(body, &mut stream));
    stream
}

proptest! {
    #[test]
    fn frames_come_out_however_the_stream_is_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LIMIT), 0..5),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        prop_assert_eq!(decode_cut(&encode_all(&bodies), &cuts), Ok(bodies));
    }

    #[test]
    fn any_bytes_give_frames_or_an_error_that_does_not_depend_on_the_cuts(
        stream in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..100),
        cuts in prop::collection::vec(any::<usize>(), 0..10),
    ) {
        prop_assert_eq!(decode_cut(&stream, &cuts), decode_cut(&stream, &[]));
    }

    #[test]
    fn what_is_wanted_never_reaches_beyond_the_frame(
        body in prop::collection::vec(any::<u8>(), 0..LIMIT),
        step in 1..50_usize,
    ) {
        let mut stream = encode_all(std::slice::from_ref(&body));
        stream.extend([7; 100]);
        let mut decoder = FrameDecoder::new(LIMIT);
        let mut read = 0;
        let whole = loop {
            let wants = decoder.wants();
            prop_assert!(wants > 0);
            let mut piece = &stream[read..read + wants.min(step)];
            read += piece.len();
            let whole = decoder.accept(&mut piece).unwrap();
            prop_assert!(piece.is_empty());
            if let Some(whole) = whole {
                break whole;
            }
        };
        prop_assert_eq!(whole, body);
        prop_assert_eq!(&stream[read..], &[7; 100]);
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_any_of_the_body() {
    for got in [LIMIT + 1, u32::MAX as usize] {
        let mut decoder = FrameDecoder::new(LIMIT);
        let header = (got as u32).to_le_bytes();
        assert_eq!(decoder.accept(&mut &header[..]), Err(FrameError::TooLong { got, limit: LIMIT }));
        assert_eq!(decoder.body.capacity(), 0);
    }
    assert_eq!(decode_cut(&encode_all(&[vec![1; LIMIT]]), &[]), Ok(vec![vec![1; LIMIT]]));
}

#[test]
fn memory_grows_with_what_came_and_not_with_what_was_announced() {
    let mut decoder = FrameDecoder::new(64 << 20);
    let mut stream = &[0, 0, 0, 4, 1, 2, 3][..];
    assert_eq!(decoder.accept(&mut stream), Ok(None));
    assert!(decoder.body.capacity() < 1024);
    assert!(decoder.wants() <= GROW_STEP);
}

#[test]
fn a_stream_that_ends_within_a_frame_is_noticed() {
    let stream = encode_all(&[vec![1, 2, 3]]);
    for end in 1..stream.len() {
        let missing = if end < HEADER_LEN { HEADER_LEN - end } else { stream.len() - end };
        assert_eq!(decode_cut(&stream[..end], &[]), Err(FrameError::Truncated { missing }));
    }
}
