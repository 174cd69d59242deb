//! The types of a TURN server, in a build without the feature `turn-server`: no value of them can exist.
//!
//! What it is not: a server that refuses. `NodeConfig::relay` can only be `None` here.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    iter::Empty,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use keyferry_net::time::UnixTime;
use keyferry_proto::{
    identity::NodeKey,
    relaying::{RelayCredentials, RelayRefusal},
};
use keyferry_turn::server::ServerCounters;
use tokio::net::TcpStream;

use crate::{base::data_dir::AdmissionPolicy, reach::turn_client::Pin};

/// How a relay is to run. There is none in this build.
#[derive(Debug, Clone)]
pub struct RelayConfig(Infallible);

/// Why a relay cannot be started.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct RelayError(Infallible);

/// The relay of a node. There is none in this build.
#[derive(Debug)]
pub struct Relay(Infallible);

/// Where connections for the relay come in. There is none in this build.
#[derive(Debug, Clone)]
pub struct Entrance(Infallible);

impl Relay {
    pub(crate) fn start(config: RelayConfig, _: &[SocketAddr], _: PathBuf) -> Result<Self, RelayError> {
        match config.0 {}
    }

    pub(crate) fn entrance(&self) -> Entrance {
        match self.0 {}
    }

    pub(crate) async fn credentials_for(
        &self,
        _: Option<NodeKey>,
        _: IpAddr,
        _: UnixTime,
    ) -> Result<RelayCredentials, RelayRefusal> {
        match self.0 {}
    }

    pub(crate) async fn seen_at(&self, _: Vec<IpAddr>) {
        match self.0 {}
    }

    pub(crate) fn policy(&self) -> AdmissionPolicy {
        match self.0 {}
    }

    pub(crate) fn pin(&self) -> Option<Pin> {
        match self.0 {}
    }

    pub(crate) fn counters(&self) -> ServerCounters {
        match self.0 {}
    }

    pub(crate) fn counts_by_name(&self) -> Empty<(String, u64)> {
        match self.0 {}
    }

    pub(crate) fn refused(&self) -> BTreeMap<String, u64> {
        match self.0 {}
    }

    pub(crate) async fn shutdown(&self) {
        match self.0 {}
    }
}

impl Entrance {
    pub(crate) fn plain(&self, _: TcpStream, _: SocketAddr, _: SocketAddr, _: Vec<u8>) {
        match self.0 {}
    }

    pub(crate) fn tls(&self, _: TcpStream, _: SocketAddr, _: SocketAddr) {
        match self.0 {}
    }
}
