//! Several servers: the first that answers is used, the next when it dies.

use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

use super::{
    super::{AddressFamily, Relays, TurnServer},
    coturn::{Coturn, is_missing},
    relaying::PATIENCE,
};

#[tokio::test]
async fn a_server_that_does_not_answer_delays_nobody_and_the_next_is_used_when_one_dies() {
    if is_missing() {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = TurnServer::new("127.0.0.1", silent.local_addr().unwrap().port(), false);
    let (mut one, other) = (Coturn::start(&[]), Coturn::start(&[]));
    let relays = Relays::new(vec![silent, one.server()]);
    relays.set_found(vec![other.server()]);
    let started = Instant::now();
    let first = relays.allocate(AddressFamily::V4).await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2);
    // The configured one has a head start.
    assert!(first.server().is_same(&one.server()));
    one.kill();
    timeout(PATIENCE, first.lease().ended()).await.expect("the end is noticed");
    let second = relays.allocate(AddressFamily::V4).await.unwrap();
    assert!(second.server().is_same(&other.server()));
    assert!(!relays.ranked()[0].is_same(&one.server()));
}

#[tokio::test]
async fn several_allocations_come_as_they_stand() {
    if is_missing() {
        return;
    }
    let (one, other) = (Coturn::start(&[]), Coturn::start(&[]));
    let relays = Relays::new(vec![one.server(), other.server(), TurnServer::new("127.0.0.1", 1, false)]);
    let mut allocations = relays.allocations(AddressFamily::V4, 3);
    let mut servers = Vec::new();
    while let Some(allocation) = timeout(PATIENCE, allocations.recv()).await.expect("in time") {
        servers.push(allocation.server().to_string());
    }
    servers.sort();
    servers.dedup();
    assert_eq!(servers.len(), 2);
}

#[tokio::test]
async fn a_server_that_is_only_looked_at_is_given_its_address_back() {
    if is_missing() {
        return;
    }
    let coturn = Coturn::start(&[]);
    let relays = Relays::new(vec![coturn.server()]);

    let probed = relays.probe().await;

    assert!(probed[0].answered.is_some() && probed[0].failure.is_none(), "{probed:?}");
    let given_back = async {
        while relays.reports()[0].allocations > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, given_back).await.expect("it is given back");
    let allocation = relays.allocate(AddressFamily::V4).await.unwrap();
    assert_eq!(relays.reports()[0].allocations, 1);
    drop(allocation);
}
