//! Relays in a node, both ways: leave for others to use this node's relay, and the relays of others at hand for this one.
//!
//! What it is not: the relay (`crate::reach::turn_server`), the search (`crate::reach::turn_discovery`) or the use of one (`crate::reach::turn_client`).

use std::{net::IpAddr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use keyferry_proto::{
    identity::NodeSecret,
    relaying::{RelayCredentials, RelayRefusal},
};
use keyferry_turn::long_term::UserCredentials;

use crate::{
    base::{
        clock,
        data_dir::{AdmissionPolicy, ContactsFile, Home},
    },
    net::path::RelayMode,
    reach::{
        rendezvous::{AnnouncedTo, CredentialIssuer, Rendezvous, Requester, TurnService},
        turn_client::{Pin, RelaySearch, Relays, Trust, TurnServer},
        turn_discovery::{FindingConfig, FoundRelay, RelayFinding},
        turn_server::Relay,
    },
};

/// How many addresses of one found relay to try: one of each family.
const MAX_ADDRS_EACH: usize = 2;

/// What the rendezvous answers and announces for a relay; `None` for one that is for its named users only.
pub(crate) fn service(relay: &Arc<Relay>, secret: &NodeSecret) -> Option<TurnService> {
    let audience = match relay.policy() {
        AdmissionPolicy::Everyone => AnnouncedTo::Everyone,
        AdmissionPolicy::Contacts => AnnouncedTo::Contacts,
        AdmissionPolicy::Nobody => return None,
    };
    Some(TurnService { issuer: relay.clone(), secret: secret.clone(), audience })
}

impl CredentialIssuer for Relay {
    fn issue(
        self: Arc<Self>,
        who: Requester,
        remote: IpAddr,
    ) -> BoxFuture<'static, Result<RelayCredentials, RelayRefusal>> {
        async move { self.credentials_for(who.node, remote, clock::now()).await }.boxed()
    }
}

/// Looks for relays of other nodes when they are wanted, and brings them to `relays`, until the returned future is dropped.
pub(crate) fn find(
    relays: &Relays,
    mode: RelayMode,
    secret: &NodeSecret,
    home: &Home,
    rendezvous: &Rendezvous,
) -> Option<BoxFuture<'static, ()>> {
    if mode == RelayMode::NoRelay {
        return None;
    }
    let config = FindingConfig {
        secret: secret.clone(),
        contacts: ContactsFile::of(home.root()),
        introduces_itself: mode != RelayMode::RelayOnly,
    };
    let finding = RelayFinding::spawn(config, rendezvous.clone());
    let (mut found, relays) = (finding.found(), relays.clone());
    relays.search_by(finding);
    Some(
        async move {
            while found.changed().await.is_ok() {
                let servers = found.borrow_and_update().iter().flat_map(servers_of).collect();
                relays.set_found(servers);
            }
        }
        .boxed(),
    )
}

impl RelaySearch for RelayFinding {
    fn want(&self) {
        Self::want(self);
    }

    fn have_failed(&self, servers: &[TurnServer]) {
        let has_failed = |way: &TurnServer| servers.iter().any(|server| server.is_where(way));
        let found = self.found();
        let found = found.borrow();
        let failed = found.iter().filter(|relay| servers_of(relay).iter().all(has_failed));
        failed.for_each(|relay| self.lost(relay.peer));
    }
}

/// The ways to use a found relay: plain at each address, and `turns:` at the first, for networks that let only TLS through.
fn servers_of(relay: &FoundRelay) -> Vec<TurnServer> {
    let issued = &relay.credentials;
    let Ok(credentials) = UserCredentials::new(issued.username.clone(), issued.password.clone()) else {
        return Vec::new();
    };
    let server = |addr: &std::net::SocketAddr, secure| TurnServer::new(addr.ip().to_string(), addr.port(), secure);
    let plain = relay.addrs.iter().take(MAX_ADDRS_EACH).map(|addr| server(addr, false));
    let secure = relay
        .addrs
        .first()
        .zip(issued.tls_pin)
        .map(|(addr, pin)| server(addr, true).with_trust(Trust::Pinned(Pin::from_bytes(pin))));
    plain.chain(secure).map(|server| server.with_credentials(credentials.clone())).collect()
}
