//! TURN's allocations (`crate::reach::turn_client`) as negotiations use them.
//!
//! What it is not: either of the two; it only joins them.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    task::{Context, Poll},
};

use futures::{FutureExt, future::BoxFuture};
use keyferry_ice::ConnectFailure;

use super::relaying::{RelayAllocation, RelayAllocator, RelayFamily};
use crate::{
    net::path::PathStream,
    reach::turn_client::{AddressFamily, Allocation, Relays},
};

impl RelayAllocator for Relays {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn allocate(&self, family: RelayFamily) -> BoxFuture<'static, Result<Box<dyn RelayAllocation>, String>> {
        let relays = self.clone();
        let family = match family {
            RelayFamily::V4 => AddressFamily::V4,
            RelayFamily::V6 => AddressFamily::V6,
        };
        async move {
            let allocation = Self::allocate(&relays, family).await.map_err(|error| error.to_string())?;
            Ok(Box::new(allocation) as Box<dyn RelayAllocation>)
        }
        .boxed()
    }
}

impl RelayAllocation for Allocation {
    fn server(&self) -> String {
        self.server().to_string()
    }

    fn relayed(&self) -> SocketAddr {
        self.relayed()
    }

    fn mapped(&self) -> SocketAddr {
        self.mapped()
    }

    fn permit(&self, peer: IpAddr) {
        self.permit(peer);
    }

    fn connect(&self, peer: SocketAddr) -> BoxFuture<'static, Result<PathStream, ConnectFailure>> {
        let connector = self.connector();
        async move { connector.connect(peer).await }.boxed()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<(PathStream, SocketAddr)>> {
        // What comes is in a queue, of which nothing is lost when this is dropped.
        pin!(self.accept()).poll(cx)
    }

    fn lease(self: Box<Self>) -> Box<dyn Send + Sync> {
        Box::new(Self::lease(&self))
    }
}
