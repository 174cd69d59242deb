use std::net::IpAddr;

use keyferry_ice::{Config, ConnectMethod, Role, Source, frame};
use stun_types::{
    attribute::Username,
    message::{BINDING, Message, MessageWriteVec, Method},
    prelude::*,
};
use tokio::{io::AsyncReadExt, sync::watch};

use super::*;
use crate::{
    base::counters::Counter,
    net::{
        port::{Connecting, Port},
        stun::StunClient,
    },
    reach::gather::Gathered,
};

/// A node's port on loopback with everything behind it that has to do with STUN.
struct Server {
    _port: Port,
    front: Front,
    ice: Arc<IceHost>,
    addr: SocketAddr,
}

async fn server(answers: bool) -> Server {
    let (port, incoming) = Port::bind(&["0.0.0.0:0".parse().unwrap()]).await.unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], port.number()));
    let ice = IceHost::new(watch::channel(Gathered::default()).1, Config::default());
    let front = Front::spawn(incoming.stun, Arc::clone(&ice), answers, None, &port);
    Server { _port: port, front, ice, addr }
}

impl Server {
    fn counters(&self) -> &StunCounters {
        self.front.counters()
    }

    /// Connects from an address of loopback, which stands for a host.
    async fn connect(&self, host: [u8; 4]) -> TcpStream {
        let source = Source::AnyPort(IpAddr::from(host));
        Connecting::start(source, self.addr, ConnectMethod::Plain).unwrap().established().await.unwrap()
    }

    /// Sends `bytes` and waits until the connection is closed, then looks at a counter.
    async fn closed_after(&self, bytes: &[u8], counter: impl Fn(&StunCounters) -> &Counter) {
        let before = counter(self.counters()).get();
        let mut stream = self.connect([127, 0, 0, 1]).await;
        stream.write_all(bytes).await.unwrap();
        let _ = in_time(stream.read_to_end(&mut Vec::new())).await;
        in_time(async {
            while counter(self.counters()).get() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("in time")
}

fn binding_request() -> Vec<u8> {
    Message::builder_request(BINDING, MessageWriteVec::new()).finish()
}

fn check(username: &str) -> Vec<u8> {
    let mut check = Message::builder_request(BINDING, MessageWriteVec::new());
    check.add_attribute(&Username::new(username).unwrap()).unwrap();
    check.finish()
}

#[tokio::test]
async fn a_client_learns_its_address_as_often_as_it_asks_on_one_connection() {
    let server = server(true).await;
    let mut client = StunClient::connect(Source::AnyPort([127, 0, 0, 1].into()), server.addr).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.repeat().await.unwrap(), client.local());
    }
    assert_eq!((client.server(), server.counters().answered.get()), (server.addr, 4));
}

#[tokio::test]
async fn a_client_holds_its_mapping_until_the_server_is_gone() {
    let server = server(true).await;
    let mut client = StunClient::connect(Source::AnyPort([127, 0, 0, 1].into()), server.addr).await.unwrap();
    let mut hold = Box::pin(client.hold(Duration::from_millis(5)));
    in_time(async {
        while server.counters().answered.get() < 5 {
            let held = timeout(Duration::from_millis(5), &mut hold).await;
            assert!(held.is_err(), "the mapping is the same all the time: {held:?}");
        }
    })
    .await;
    drop(server);
    assert!(in_time(hold).await.is_err());
}

#[tokio::test]
async fn what_is_nobodys_is_closed_and_counted() {
    let server = server(true).await;
    let allocate = Message::builder_request(Method::new(3), MessageWriteVec::new()).finish();
    let mut too_long = binding_request();
    too_long[2..4].copy_from_slice(&[0xff, 0xfc]);
    server.closed_after(&allocate, |counters| &counters.not_binding).await;
    server.closed_after(&too_long, |counters| &counters.malformed).await;
    server.closed_after(&[&binding_request()[..], &[0x55; 30]].concat(), |counters| &counters.malformed).await;
    server.closed_after(&frame(&check("nobody:peer")).unwrap(), |counters| &counters.ice_unknown).await;
    server.closed_after(&frame(&allocate).unwrap(), |counters| &counters.malformed).await;
    server.closed_after(&frame(&check("no colon")).unwrap(), |counters| &counters.malformed).await;
}

#[tokio::test]
async fn a_node_that_is_told_so_answers_nobody() {
    let server = server(false).await;
    server.closed_after(&binding_request(), |counters| &counters.not_binding).await;
    server.closed_after(&frame(&binding_request()).unwrap(), |counters| &counters.malformed).await;
    assert_eq!((server.counters().answered.get(), server.counters().introduced.get()), (0, 0));
}

#[tokio::test]
async fn a_connection_that_shows_half_a_message_is_closed_in_time() {
    let server = server(true).await;
    server.closed_after(&binding_request()[..10], |counters| &counters.silent).await;
}

#[tokio::test]
async fn a_check_reaches_its_negotiation_whole_and_what_is_behind_it_stays_unread() {
    let server = server(true).await;
    let mut negotiation = server.ice.begin(Role::Controlled).unwrap();
    let check = check(&format!("{}:peer", negotiation.description().ufrag));
    let mut stream = server.connect([127, 0, 0, 1]).await;
    for piece in [&frame(&check).unwrap()[..], b"raw bytes"].concat().chunks(7) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut inbound = in_time(negotiation.next_inbound()).await;
    assert_eq!((&inbound.first_check, inbound.remote), (&check, stream.local_addr().unwrap()));
    let mut behind = [0; 9];
    in_time(inbound.stream.read_exact(&mut behind)).await.unwrap();
    assert_eq!(&behind, b"raw bytes");
    drop(negotiation);
    server.closed_after(&frame(&check).unwrap(), |counters| &counters.ice_unknown).await;
}

#[tokio::test]
async fn a_negotiation_that_does_not_look_is_not_flooded() {
    let server = server(true).await;
    let negotiation = server.ice.begin(Role::Controlled).unwrap();
    let framed = frame(&check(&format!("{}:peer", negotiation.description().ufrag))).unwrap();
    let mut held = Vec::new();
    for _ in 0..40 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        stream.write_all(&framed).await.unwrap();
        held.push(stream);
    }
    in_time(async {
        while server.counters().ice_checks.get() + server.counters().ice_full.get() < 40 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(server.counters().ice_checks.get(), 16);
}

#[tokio::test]
async fn a_host_that_asks_too_much_is_turned_away_and_others_are_not() {
    let server = server(true).await;
    let mut greedy = server.connect([127, 0, 0, 1]).await;
    greedy.write_all(&binding_request().repeat(500)).await.unwrap();
    let _ = in_time(greedy.read_to_end(&mut Vec::new())).await;
    assert_eq!(server.counters().rate_limited.get(), 1);
    // One of two: once in 4,096 times a host shares the bucket of the greedy one.
    let mut answered = 0;
    for other in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        if let Ok(other) = StunClient::connect(Source::AnyPort(other.into()), server.addr).await {
            assert_eq!(other.mapped(), other.local());
            answered += 1;
        }
    }
    assert!(answered > 0);
}

#[tokio::test]
async fn a_flood_of_connections_takes_the_places_of_its_own_host_only() {
    let server = server(true).await;
    let mut patient = StunClient::connect(Source::AnyPort([127, 0, 0, 2].into()), server.addr).await.unwrap();
    let mut flood = Vec::new();
    for _ in 0..300 {
        let mut stream = server.connect([127, 0, 0, 1]).await;
        stream.write_all(&binding_request()[..12]).await.unwrap();
        flood.push(stream);
    }
    in_time(async {
        while server.counters().pushed_out.get() < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(patient.repeat().await.unwrap(), patient.local());
}

#[tokio::test]
async fn a_framed_request_to_nobody_is_answered_and_what_follows_goes_to_its_owner() {
    let (port, incoming) = Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let ice = IceHost::new(watch::channel(Gathered::default()).1, Config::default());
    let front = Front::spawn(incoming.stun, ice, true, None, &port);
    let mut sessions = incoming.sessions;
    let mut stream = TcpStream::connect(port.local_addrs()[0]).await.unwrap();
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();

    stream.write_all(&frame(&request).unwrap()).await.unwrap();
    let answer = in_time(read::first(&mut stream)).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5]).await.unwrap();
    let mut accepted = in_time(sessions.recv()).await.unwrap();

    let First::Framed(answer) = answer else { panic!("not framed: {answer:?}") };
    let answer = Message::from_bytes(&answer).unwrap();
    assert_eq!(answer.transaction_id(), Message::from_bytes(&request).unwrap().transaction_id());
    assert_eq!(accepted.remote, stream.local_addr().unwrap());
    let mut hello = [0; 10];
    in_time(accepted.stream.read_exact(&mut hello)).await.unwrap();
    assert_eq!(hello[..2], [0x16, 0x03], "nothing of it was read");
    assert_eq!(front.counters().introduced.get(), 1);
    drop(port);
}

#[tokio::test]
async fn a_second_framed_request_to_nobody_ends_the_connection() {
    let server = server(true).await;
    let request = frame(&Message::builder_request(BINDING, MessageWriteVec::new()).finish()).unwrap();
    let mut stream = server.connect([127, 0, 0, 1]).await;
    for _ in 0..2 {
        stream.write_all(&request).await.unwrap();
    }
    in_time(read::first(&mut stream)).await.unwrap();
    let _ = in_time(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(server.counters().introduced.get(), 1);
}
