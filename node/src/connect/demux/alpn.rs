//! Who gets a TLS connection at the node's port: sessions and `turns:` begin alike, but for the ALPN in their ClientHello
//! (RFC 7301).
//!
//! | ALPN                                     | goes to                                                         |
//! |------------------------------------------|-----------------------------------------------------------------|
//! | has `keyferry/1`                         | sessions                                                        |
//! | any other, or none at all                | the relay: many TURN clients have none (RFC 7443 makes it optional) |
//!
//! What it is not: a handshake. The ClientHello is looked at and not read, so that its owner finds it whole.

use std::{io, time::Duration};

use rustls::server::Acceptor;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet, time::timeout};

use crate::{
    net::{
        port::{Accepted, MAX_WAITING, Undecided},
        session::ALPN,
    },
    reach::turn_server::Entrance,
};

/// How long a ClientHello may take to arrive.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest ClientHello to look at: one with a post-quantum key share has 2 KiB.
const MAX_HELLO: usize = 8 * 1024;
/// Connections that may be looked at together. One more pushes out the oldest of the host that has most.
const MAX_UNDECIDED: usize = 256;
/// Pause between two looks at a ClientHello that is not all there; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// Who gets a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Sessions,
    Relay,
}

/// Gives the relay its connections, and returns the queue of the others.
pub(crate) async fn sort(mut incoming: mpsc::Receiver<Accepted>, relay: Entrance, sessions: mpsc::Sender<Accepted>) {
    let undecided = Undecided::new(MAX_UNDECIDED);
    let mut looks = JoinSet::new();
    while let Some(accepted) = incoming.recv().await {
        while looks.try_join_next().is_some() {}
        let mut place = undecided.enter(accepted.remote.ip());
        let (relay, sessions) = (relay.clone(), sessions.clone());
        looks.spawn(async move {
            let owner = tokio::select! {
                owner = timeout(HELLO_TIMEOUT, owner(&accepted.stream)) => owner,
                _ = &mut place.pushed_out => return,
            };
            match owner {
                Ok(Ok(Owner::Sessions)) => drop(sessions.try_send(accepted)),
                Ok(Ok(Owner::Relay)) => relay.tls(accepted.stream, accepted.remote, accepted.local),
                Ok(Err(error)) => tracing::debug!(%error, "no ClientHello"),
                Err(_) => tracing::debug!("no ClientHello in time"),
            }
        });
    }
}

/// A queue for what [`sort`] leaves.
pub(crate) fn queue() -> (mpsc::Sender<Accepted>, mpsc::Receiver<Accepted>) {
    mpsc::channel(MAX_WAITING)
}

/// Looks at a ClientHello until it is all there.
async fn owner(stream: &TcpStream) -> io::Result<Owner> {
    let mut bytes = vec![0; MAX_HELLO];
    let (mut pause, mut seen) = (FIRST_PAUSE, 0);
    loop {
        let got = stream.peek(&mut bytes).await?;
        match owner_of(&bytes[..got])? {
            Some(owner) => return Ok(owner),
            None if got == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None if got == MAX_HELLO => return Err(io::Error::other("a ClientHello that is too long")),
            None => {
                // The socket stays readable while these bytes lie there, so only time tells when to look again.
                if got > seen {
                    (pause, seen) = (FIRST_PAUSE, got);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// Who gets a connection with this ClientHello; none while it is not all there.
fn owner_of(bytes: &[u8]) -> io::Result<Option<Owner>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest)? == 0 {
            break;
        }
        let hello = acceptor.accept().map_err(|(error, _)| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(hello) = hello {
            let hello = hello.client_hello();
            let is_session = hello.alpn().is_some_and(|mut names| names.any(|name| name == ALPN));
            return Ok(Some(if is_session { Owner::Sessions } else { Owner::Relay }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

    use super::*;

    fn hello(alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut client = ClientConnection::new(Arc::new(config), "relay.example".try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn sessions_say_so_and_all_others_are_for_the_relay() {
        assert_eq!(owner_of(&hello(&[ALPN])).unwrap(), Some(Owner::Sessions));
        assert_eq!(owner_of(&hello(&[b"stun.turn"])).unwrap(), Some(Owner::Relay));
        assert_eq!(owner_of(&hello(&[])).unwrap(), Some(Owner::Relay));
    }

    #[test]
    fn a_hello_that_is_not_all_there_is_waited_for_and_anything_else_is_refused() {
        let whole = hello(&[ALPN]);
        for cut in [0, 1, 5, 100, whole.len() - 1] {
            assert_eq!(owner_of(&whole[..cut]).unwrap(), None, "{cut}");
        }
        let mut bad = whole;
        bad[5] = 9;
        assert!(owner_of(&bad).is_err());
        assert!(
            owner_of(&[0x16, 0x03, 0x01, 0xff, 0xff, 1]).is_err()
                || owner_of(&[0x16, 0x03, 0x01, 0xff, 0xff, 1]).unwrap().is_none()
        );
    }

    #[tokio::test]
    async fn looking_at_it_leaves_it_whole() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let bytes = hello(&[ALPN]);
        let (head, tail) = bytes.split_at(50);
        client.write_all(head).await.unwrap();
        let looked = tokio::spawn(async move {
            (owner(&server).await.unwrap(), {
                let mut read = vec![0; 4096];
                let got = server.read(&mut read).await.unwrap();
                read.truncate(got);
                read
            })
        });
        tokio::task::yield_now().await;
        client.write_all(tail).await.unwrap();
        assert_eq!(looked.await.unwrap(), (Owner::Sessions, bytes.clone()));
    }
}
