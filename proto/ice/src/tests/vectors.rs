//! The examples of RFC 5769 (STUN) and RFC 6544 (priorities), read and made by what the agent uses.

use data_encoding::HEXLOWER;

use crate::{
    Credentials, Priority, Role, addressed_ufrag,
    candidate::{Candidate, CandidateKind, TcpType},
    messages::{AnswerOutcome, BindingError, Check, CheckRefusal, Incoming, read},
};

/// RFC 5769 §2.1: the only password of the examples that is short-term.
const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1: a check of a controlled agent.
const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae\
    802200105354554e207465737420636c69656e74\
    002400046e0001ff\
    80290008932ff9b151263b36\
    000600096576746a3a68367659202020\
    000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
    80280004e57a3bcf";

/// RFC 5769 §2.2: the address 192.0.2.1:32853.
const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220\
    002000080001a147e112a643\
    000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7\
    80280004c07d4c96";

/// RFC 5769 §2.3: the address [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae\
    8022000b7465737420766563746f7220\
    002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9\
    00080014a382954e4be67bf11784c97c8292c275bfe3ed41\
    80280004c8fb0b4c";

fn bytes(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn known(password: &str) -> Credentials {
    Credentials { ufrag: "evtj".to_owned(), password: password.to_owned() }
}

#[test]
fn the_sample_request_is_a_check_of_a_controlled_agent() {
    let message = bytes(REQUEST);
    assert_eq!(addressed_ufrag(&message).as_deref(), Some("evtj"));
    let Ok(Incoming::Request(request)) = read(&message) else { panic!("a request") };
    let role = Some((Role::Controlled, 0x932f_f9b1_5126_3b36));
    assert_eq!(
        request.check(&known(PASSWORD)),
        Ok(Check { priority: Priority::try_from(0x6e00_01ff).unwrap(), role, nominates: false })
    );
    assert_eq!(request.check(&known("another password of 22")), Err(CheckRefusal::Unauthenticated));
}

#[test]
fn the_sample_responses_are_authentic_and_tell_their_addresses() {
    let cases = [(RESPONSE_V4, "192.0.2.1:32853"), (RESPONSE_V6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")];
    for (response, mapped) in cases {
        let message = bytes(response);
        let Ok(Incoming::Answer(answer)) = read(&message) else { panic!("an answer") };
        assert_eq!(answer.outcome(&known(PASSWORD)), Ok(AnswerOutcome::Success { mapped: mapped.parse().unwrap() }));
        assert_eq!(answer.outcome(&known("another password of 22")), Err(BindingError::Unauthentic));
    }
}

#[test]
fn a_sample_with_any_bit_changed_is_no_authentic_message() {
    for sample in [REQUEST, RESPONSE_V4, RESPONSE_V6] {
        let message = bytes(sample);
        // A missing fingerprint matters only to those who have other protocols on the same port.
        let fingerprint_type = (message.len() - 8) * 8..(message.len() - 6) * 8;
        for bit in (0..message.len() * 8).filter(|bit| !fingerprint_type.contains(bit)) {
            let mut changed = message.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let is_authentic = match read(&changed) {
                Ok(Incoming::Request(request)) => request.check(&known(PASSWORD)).is_ok(),
                Ok(Incoming::Answer(answer)) => answer.outcome(&known(PASSWORD)).is_ok(),
                Ok(Incoming::Indication) | Err(_) => false,
            };
            assert!(!is_authentic, "bit {bit} of {sample}");
        }
    }
}

#[test]
fn a_success_that_the_agent_makes_differs_from_the_sample_by_the_software_only() {
    let message = bytes(REQUEST);
    let Ok(Incoming::Request(request)) = read(&message) else { panic!("a request") };
    let made = request.success("192.0.2.1:32853".parse().unwrap(), &known(PASSWORD));
    let sample = bytes(RESPONSE_V4);
    // Type, cookie and transaction; then the address as it stands behind the sample's SOFTWARE.
    assert_eq!((&made[..2], &made[4..20]), (&sample[..2], &sample[4..20]));
    assert_eq!(made[20..32], sample[36..48]);
    let Ok(Incoming::Answer(answer)) = read(&made) else { panic!("an answer") };
    assert!(answer.outcome(&known(PASSWORD)).is_ok());
}

#[test]
fn priorities_are_those_of_the_example_offer() {
    // RFC 6544, appendix A: the candidates of one TCP host behind a NAT.
    let example = [
        (CandidateKind::Host, TcpType::Active, 2_128_609_279),
        (CandidateKind::Host, TcpType::Passive, 2_124_414_975),
        (CandidateKind::Host, TcpType::SimultaneousOpen, 2_120_220_671),
        (CandidateKind::ServerReflexive, TcpType::Active, 1_688_207_359),
        (CandidateKind::ServerReflexive, TcpType::Passive, 1_684_013_055),
        (CandidateKind::ServerReflexive, TcpType::SimultaneousOpen, 1_692_401_663),
    ];
    for (kind, tcp_type, priority) in example {
        let candidate = Candidate::new(kind, tcp_type, "192.0.2.3:45664".parse().unwrap(), 0x1fff);
        assert_eq!(u32::from(candidate.priority), priority, "{kind:?} {tcp_type:?}");
    }
}

#[test]
fn priorities_are_those_of_the_formula() {
    // RFC 8445 §5.1.2.1 and RFC 6544 §4.2, written out once more.
    let kinds = [
        (CandidateKind::Host, 126_u32, [6, 4, 2]),
        (CandidateKind::PortMapped, 105, [4, 2, 6]),
        (CandidateKind::ServerReflexive, 100, [4, 2, 6]),
        (CandidateKind::Relayed, 0, [6, 4, 2]),
    ];
    let types = [TcpType::Active, TcpType::Passive, TcpType::SimultaneousOpen];
    for (kind, type_preference, directions) in kinds {
        for (tcp_type, direction) in types.into_iter().zip(directions) {
            for other in [0_u16, 1, 0x1000, 0x1fff] {
                let local_preference = (1 << 13) * direction + u32::from(other);
                let expected = (1 << 24) * type_preference + (1 << 8) * local_preference + 256 - 1;
                let candidate = Candidate::new(kind, tcp_type, "192.0.2.3:1".parse().unwrap(), other);
                assert_eq!(u32::from(candidate.priority), expected);
            }
        }
    }
}
