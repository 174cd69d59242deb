//! Whatever a server sends and a caller calls, the client neither panics nor grows.

use std::time::Duration;

use proptest::prelude::*;
use turn_types::{
    attribute::ConnectionId,
    message::{ALLOCATE, CONNECT},
};

use super::{
    super::{Client, ClientOutput, Config},
    exchange::{Exchange, LIFETIME, PASSWORD, peer, seconds},
};

/// Something that may happen.
#[derive(Debug, Clone)]
enum Event {
    Bytes(Vec<u8>),
    Corrupted { at: usize, bit: u8 },
    Denied(u16),
    Granted,
    Attempt(u32, u8),
    Permit(u8),
    Connect(u8),
    DataConnected,
    DataClosed,
    DataBytes(Vec<u8>),
    Later(u16),
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..80);
    let code = prop_oneof![Just(401), Just(438), Just(437), Just(447), Just(300), 300_u16..699];
    prop_oneof![
        1 => bytes().prop_map(Event::Bytes),
        2 => (any::<usize>(), 0_u8..8).prop_map(|(at, bit)| Event::Corrupted { at, bit }),
        4 => code.prop_map(Event::Denied),
        8 => Just(Event::Granted),
        4 => (0_u32..6, any::<u8>()).prop_map(|(connection, host)| Event::Attempt(connection, host)),
        4 => any::<u8>().prop_map(Event::Permit),
        4 => any::<u8>().prop_map(Event::Connect),
        4 => Just(Event::DataConnected),
        1 => Just(Event::DataClosed),
        1 => bytes().prop_map(Event::DataBytes),
        4 => any::<u16>().prop_map(Event::Later),
        1 => Just(Event::Release),
    ]
}

fn happen(exchange: &mut Exchange, event: Event) {
    let data = exchange.told.iter().rev().find_map(|told| match told {
        ClientOutput::OpenData { data } => Some(*data),
        _ => None,
    });
    match (event, data) {
        (Event::Bytes(bytes), _) => exchange.answer(None, &bytes),
        (Event::Corrupted { at, bit }, _) => {
            if let Some(mut sent) = exchange.sent.pop_front() {
                // A success of the same transaction, with a flipped bit.
                sent.message[0] |= 1;
                let at = at % sent.message.len();
                sent.message[at] ^= 1 << bit;
                exchange.answer(sent.data, &sent.message);
            }
        }
        (Event::Denied(code), _) if !exchange.sent.is_empty() => exchange.deny(code),
        (Event::Granted, _) => grant(exchange),
        (Event::Attempt(connection, host), _) => exchange.attempt(connection, ([192, 0, 2, host % 4], 7).into()),
        (Event::Permit(host), _) => {
            exchange.with_client(|client, now| _ = client.permit(now, [192, 0, 2, host % 4].into()));
        }
        (Event::Connect(host), _) => {
            exchange.with_client(|client, now| _ = client.connect(now, ([192, 0, 2, host], 7).into()));
        }
        (Event::DataConnected, Some(data)) => exchange.with_client(|client, now| client.data_connected(now, data)),
        (Event::DataClosed, Some(data)) => exchange.with_client(|client, _| client.data_closed(data)),
        (Event::DataBytes(bytes), Some(data)) => exchange.answer(Some(data), &bytes),
        (Event::Later(millis), _) => {
            exchange.now += Duration::from_millis(millis.into());
            exchange.with_client(Client::handle_timeout);
        }
        (Event::Release, _) => exchange.with_client(Client::release),
        (Event::Denied(_) | Event::DataConnected | Event::DataClosed | Event::DataBytes(_), _) => {}
    }
}

fn grant(exchange: &mut Exchange) {
    match exchange.sent.front().map(|sent| sent.method()) {
        Some(ALLOCATE) => exchange.grant_allocation(LIFETIME),
        Some(CONNECT) => exchange.grant(CONNECT, &[&ConnectionId::new(7)]),
        Some(method) => exchange.grant(method, &[&seconds(LIFETIME)]),
        None => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_events_make_it_panic_or_grow(events in proptest::collection::vec(event(), 1..80)) {
        let config = Config { max_permissions: 3, max_connects: 2, max_unbound: 2, ..Config::default() };
        let limit = 1 + config.max_permissions + config.max_connects * 2 + config.max_unbound;
        let mut exchange = Exchange::with(Some(PASSWORD), config, None);
        exchange.checks_nonces = false;
        for event in events {
            happen(&mut exchange, event);
            prop_assert!(exchange.client.transactions.len() <= limit);
        }
        let ended = exchange.told.iter().filter(|told| matches!(told, ClientOutput::Ended(_))).count();
        prop_assert_eq!(ended, usize::from(exchange.client.has_ended()));
        // And it always comes to an end.
        exchange.with_client(Client::release);
        while exchange.client.poll_timeout().is_some() {
            exchange.wait();
        }
        prop_assert!(exchange.client.has_ended());
        prop_assert_eq!(exchange.client.connect(exchange.now, peer()).is_err(), true);
    }
}
