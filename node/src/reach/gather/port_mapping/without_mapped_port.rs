//! A port of the router, in a build without the feature `port-mapping`: there can be none.

use std::{convert::Infallible, net::SocketAddr};

use tokio::sync::watch;

use super::PortMapping;
use crate::reach::gather::{GatherError, NetworkChange};

pub(in super::super) struct MappedPort(Infallible);

impl MappedPort {
    pub(in super::super) fn start(_: &[SocketAddr], _: watch::Receiver<NetworkChange>) -> Result<Self, GatherError> {
        Err(GatherError::WithoutPortMapping)
    }

    pub(in super::super) fn state(&self) -> PortMapping {
        match self.0 {}
    }

    pub(in super::super) async fn changed(&mut self) {
        match self.0 {}
    }

    pub(in super::super) async fn release(self) {
        match self.0 {}
    }
}
