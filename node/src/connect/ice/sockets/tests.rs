use std::future::poll_fn;

use keyferry_ice::{Agent, AgentOptions, Config, Credentials, Mapping, Role};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};

use super::*;

/// Some connection ids: only an agent makes them.
fn ids(count: usize) -> Vec<ConnId> {
    let now = std::time::Instant::now();
    let options = AgentOptions { stream: keyferry_ice::Stream::Direct, mapping: Mapping::Unknown, opening: false };
    let mut agent = Agent::new(
        Config::default(),
        Role::Controlled,
        Credentials::from_random(&rand::random()),
        options,
        [0; 32],
        now,
    );
    let addr: SocketAddr = "127.0.0.1:1".parse().unwrap();
    (0..count).map(|_| agent.accepted(now, addr, addr).unwrap()).collect()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn next(sockets: &mut Sockets) -> Event {
    tokio::time::timeout(Duration::from_secs(20), poll_fn(|cx| sockets.poll_event(cx))).await.expect("in time")
}

/// Sockets with one connection, and its other end.
async fn one_wire() -> (Sockets, ConnId, TcpStream) {
    let (ours, theirs) = pair().await;
    let mut sockets = Sockets::default();
    let conn = ids(1)[0];
    sockets.adopt(conn, ours.into());
    (sockets, conn, theirs)
}

#[tokio::test]
async fn messages_in_pieces_arrive_whole_and_the_raw_bytes_behind_them_stay() {
    for piece in [1, 2, 3, 7, 64, 1000] {
        let (mut sockets, conn, mut theirs) = one_wire().await;
        let messages: Vec<Vec<u8>> = (1..6u8).map(|n| vec![n; usize::from(n) * 31]).collect();
        let mut sent: Vec<u8> = messages.iter().flat_map(|message| frame(message).unwrap()).collect();
        sent.extend(b"raw");
        let writer = tokio::spawn(async move {
            for bytes in sent.chunks(piece) {
                theirs.write_all(bytes).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs
        });
        for expected in messages {
            assert!(matches!(next(&mut sockets).await, Event::Received { message, .. } if message == expected));
        }
        let mut stream = sockets.release(conn).await.unwrap();
        drop(writer.await.unwrap());
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"raw");
    }
}

#[tokio::test]
async fn what_was_sent_leaves_before_the_connection_is_handed_over() {
    let (mut sockets, conn, mut theirs) = one_wire().await;
    (0..5).for_each(|n| sockets.send(conn, &[n; 100]));
    let mut stream = sockets.release(conn).await.unwrap();
    stream.write_all(b"raw").await.unwrap();
    drop((stream, sockets));
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).await.unwrap();
    let expected: Vec<u8> = (0..5).flat_map(|n| frame(&[n; 100]).unwrap()).chain(*b"raw").collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_connection_that_does_not_speak_frames_is_closed() {
    for garbage in [&[0, 0][..], &[0xff, 0xff, 1, 2], b"GET / HTTP/1.1\r\n"] {
        let (mut sockets, conn, mut theirs) = one_wire().await;
        theirs.write_all(garbage).await.unwrap();
        assert!(matches!(next(&mut sockets).await, Event::Closed { conn: closed } if closed == conn));
        assert!(matches!(theirs.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_connection_is_not_handed_over_in_the_middle_of_a_message() {
    let (mut sockets, conn, mut theirs) = one_wire().await;
    theirs.write_all(&frame(b"whole").unwrap()).await.unwrap();
    theirs.write_all(&[0, 50, 1]).await.unwrap();
    assert!(matches!(next(&mut sockets).await, Event::Received { .. }));
    let waiting = tokio::time::timeout(Duration::from_millis(50), poll_fn(|cx| sockets.poll_event(cx))).await;
    assert!(waiting.is_err());
    assert_eq!(sockets.release(conn).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_flood_of_messages_ends_and_does_not_keep_others_waiting() {
    let ((flooded, mut flooder), (quiet, mut speaker)) = (pair().await, pair().await);
    let mut sockets = Sockets::default();
    let ids = ids(2);
    sockets.adopt(ids[0], flooded.into());
    sockets.adopt(ids[1], quiet.into());
    flooder.write_all(&frame(b"again").unwrap().repeat(1000)).await.unwrap();
    speaker.write_all(&frame(b"once").unwrap()).await.unwrap();
    let (mut from_flooder, mut heard_at) = (0, None);
    loop {
        match next(&mut sockets).await {
            Event::Received { conn, .. } if conn == ids[1] => heard_at = Some(from_flooder),
            Event::Received { .. } => from_flooder += 1,
            Event::Closed { conn } => {
                assert_eq!(conn, ids[0]);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(from_flooder, MAX_MESSAGES);
    assert!(heard_at.is_some_and(|at| at < MAX_MESSAGES));
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed() {
    let (mut sockets, conn, _theirs) = one_wire().await;
    for _ in 0..20_000 {
        sockets.send(conn, &[0; 1400]);
    }
    assert!(matches!(next(&mut sockets).await, Event::Closed { .. }));
}

#[tokio::test]
async fn a_closed_connection_leaves_its_four_numbers_free_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let remote = listener.local_addr().unwrap();
    let (_port, _incoming) = crate::net::port::Port::bind(&["127.0.0.1:0".parse().unwrap()]).await.unwrap();
    let source = Source::Port(_port.local_addrs()[0]);
    let mut sockets = Sockets::default();
    for conn in ids(5) {
        sockets.connect(conn, source, remote, ConnectMethod::Plain).unwrap();
        assert!(matches!(next(&mut sockets).await, Event::Connected { .. }));
        let (mut accepted, _) = listener.accept().await.unwrap();
        sockets.close(conn);
        assert!(accepted.read(&mut [0]).await.is_err(), "closed by RST");
    }
}

#[tokio::test]
async fn a_way_is_open_before_the_connection_stands() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(local).await.unwrap();
        let remote = listener.local_addr().unwrap();
        let (port, _incoming) = crate::net::port::Port::bind(&[local.parse().unwrap()]).await.unwrap();
        let mut sockets = Sockets::default();
        let conn = ids(1)[0];
        sockets.connect(conn, Source::Port(port.local_addrs()[0]), remote, ConnectMethod::Opening { ttl: 2 }).unwrap();
        assert!(matches!(next(&mut sockets).await, Event::Opened { conn: opened } if opened == conn));
        assert!(matches!(next(&mut sockets).await, Event::Connected { conn: connected, .. } if connected == conn));
    }
}

#[tokio::test]
async fn dropping_the_sockets_closes_all_of_them() {
    let (sockets, _, mut theirs) = one_wire().await;
    drop(sockets);
    assert!(matches!(theirs.read(&mut [0]).await, Ok(0) | Err(_)));
}
