//! One port of the router, for a time: asking for it in the protocols that routers speak, renewing it and giving it back.
//!
//! What it is not: the decision when to do so; see [`super`].

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    pin::pin,
    time::Duration,
};

use crab_nat::{
    GatewayAddress, InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig, VersionCode, natpmp, pcp,
};
use futures::future::{Either, select};
use igd_next::{AddPortError, PortMappingProtocol, SearchOptions, aio};
use tokio::time::timeout;

use super::{MappingProtocol, RouterProtocols, router::Router};

/// For how long to ask for a port. When that has passed, the router takes the port back, should this machine have vanished.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// How often to ask by PCP and by NAT-PMP, waiting twice as long each time: 0.25 s, 0.5 s, 1 s (RFC 6886 §3.1).
const TIMING: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 2, max_retry_timeout: None };
/// How long routers that speak UPnP may take to say so. The answers to a search may be spread over 2 s.
const UPNP_SEARCH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one request of UPnP may take.
const UPNP_TIMEOUT: Duration = Duration::from_secs(4);
/// The name of the mapping that routers show to their owner.
const DESCRIPTION: &str = "keyferry";

/// A port of the router.
#[derive(Debug)]
pub(super) struct MappingLease {
    held: HeldMapping,
    local: SocketAddr,
    external: SocketAddr,
    lifetime: Duration,
}

#[derive(Debug)]
enum HeldMapping {
    /// By PCP or NAT-PMP.
    Requested(crab_nat::PortMapping),
    Upnp(UpnpRouter),
}

/// A router that speaks UPnP.
type UpnpRouter = aio::Gateway<aio::tokio::Tokio>;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(super) enum MappingError {
    #[error("the router at {router} answers neither PCP nor NAT-PMP nor UPnP")]
    Silent { router: Ipv4Addr },
    #[error("{by}: {reason}")]
    Refused { by: MappingProtocol, reason: String },
}

impl MappingLease {
    /// Asks in all protocols, and takes the port from the most reliable one: PCP, then NAT-PMP, then UPnP. Does not wait
    /// for the others once PCP has given one; [`protocols`] says what else the router speaks.
    pub(super) async fn ask(router: &Router) -> (RouterProtocols, Result<Self, MappingError>) {
        let others =
            async { tokio::join!(natpmp::external_address(router.ip.into(), Some(TIMING)), find_upnp(router)) };
        let (requested, (nat_pmp, upnp)) = match select(pin!(by_pcp(router)), pin!(others)).await {
            Either::Left((PcpAnswer::Given(lease), _)) => {
                return (RouterProtocols { pcp: true, ..RouterProtocols::default() }, Ok(*lease));
            }
            Either::Left((requested, others)) => (requested, others.await),
            Either::Right((others, requested)) => (requested.await, others),
        };
        let protocols =
            RouterProtocols { pcp: requested.is_spoken(), nat_pmp: is_spoken(&nat_pmp), upnp: upnp.is_some() };
        let mut refusal = requested.refusal();
        if let PcpAnswer::Given(lease) = requested {
            return (protocols, Ok(*lease));
        }
        if let Ok(outer) = nat_pmp {
            match by_nat_pmp(router, outer).await {
                Ok(lease) => return (protocols, Ok(lease)),
                Err(error) => refusal = refusal.or(Some((MappingProtocol::NatPmp, error.to_string()))),
            }
        }
        if let Some(upnp) = upnp {
            match by_upnp(upnp, router.local, router.local.port()).await {
                Ok(lease) => return (protocols, Ok(lease)),
                Err(reason) => refusal = refusal.or(Some((MappingProtocol::Upnp, reason))),
            }
        }
        let error = match refusal {
            Some((by, reason)) => MappingError::Refused { by, reason },
            None => MappingError::Silent { router: router.ip },
        };
        (protocols, Err(error))
    }

    /// Asks for the same port again, before its time has run out. The outer address may be another one afterwards.
    pub(super) async fn renew(&mut self) -> Result<(), MappingError> {
        let refused = |by, reason: String| MappingError::Refused { by, reason };
        match &mut self.held {
            HeldMapping::Requested(mapping) => {
                let by = protocol_of(mapping);
                mapping.renew().await.map_err(|error| refused(by, error.to_string()))?;
                let outer = match mapping.mapping_type() {
                    PortMappingType::Pcp { external_ip, .. } => external_ip,
                    PortMappingType::NatPmp => natpmp::external_address(mapping.gateway(), Some(TIMING))
                        .await
                        .map_err(|error| refused(by, error.to_string()))?
                        .into(),
                };
                self.external = SocketAddr::new(outer, mapping.external_port().get());
                self.lifetime = Duration::from_secs(mapping.lifetime().into());
            }
            HeldMapping::Upnp(upnp) => {
                let again = by_upnp(upnp.clone(), self.local, self.external.port()).await;
                *self = again.map_err(|reason| refused(MappingProtocol::Upnp, reason))?;
            }
        }
        Ok(())
    }

    /// Gives the port back.
    pub(super) async fn release(self) -> Result<(), MappingError> {
        match self.held {
            HeldMapping::Requested(mapping) => {
                let by = protocol_of(&mapping);
                mapping.try_drop().await.map_err(|(error, _)| MappingError::Refused { by, reason: error.to_string() })
            }
            HeldMapping::Upnp(upnp) => {
                let removed = within(upnp.remove_port(PortMappingProtocol::TCP, self.external.port())).await;
                removed.map_err(|reason| MappingError::Refused { by: MappingProtocol::Upnp, reason })
            }
        }
    }

    /// By which protocol it was asked for.
    pub(super) fn by(&self) -> MappingProtocol {
        match &self.held {
            HeldMapping::Requested(mapping) => protocol_of(mapping),
            HeldMapping::Upnp(_) => MappingProtocol::Upnp,
        }
    }

    /// The address to which the router sends what comes in.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The router's outer address, with the port.
    pub(super) fn external(&self) -> SocketAddr {
        self.external
    }

    /// How long the router keeps it, from the last time it was asked.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// Which protocols a router speaks that has given a port by PCP.
pub(super) async fn protocols(router: &Router) -> RouterProtocols {
    let nat_pmp = natpmp::external_address(router.ip.into(), Some(TIMING));
    let (nat_pmp, upnp) = tokio::join!(nat_pmp, find_upnp(router));
    RouterProtocols { pcp: true, nat_pmp: is_spoken(&nat_pmp), upnp: upnp.is_some() }
}

/// The answer by PCP.
enum PcpAnswer {
    Given(Box<MappingLease>),
    /// It speaks the protocol, and says no.
    Refused(String),
    Silent,
}

impl PcpAnswer {
    fn is_spoken(&self) -> bool {
        !matches!(self, Self::Silent)
    }

    fn refusal(&self) -> Option<(MappingProtocol, String)> {
        match self {
            Self::Refused(reason) => Some((MappingProtocol::Pcp, reason.clone())),
            _ => None,
        }
    }
}

async fn by_pcp(router: &Router) -> PcpAnswer {
    let Some(port) = NonZeroU16::new(router.local.port()) else { return PcpAnswer::Silent };
    let base =
        pcp::BaseMapRequest::new(GatewayAddress::IpV4(router.ip), router.local.ip(), InternetProtocol::Tcp, port);
    match pcp::port_mapping(base, None, None, options(port)).await {
        Ok(mapping) => {
            let PortMappingType::Pcp { external_ip, .. } = mapping.mapping_type() else { return PcpAnswer::Silent };
            // An IPv4 address comes in its IPv6 form (RFC 6887 §5).
            PcpAnswer::Given(Box::new(MappingLease::requested(mapping, router.local, external_ip.to_canonical())))
        }
        Err(pcp::Failure::Timeout | pcp::Failure::Socket(_) | pcp::Failure::InvalidResponse(_)) => PcpAnswer::Silent,
        Err(pcp::Failure::UnsupportedVersion(VersionCode::NatPmp)) => PcpAnswer::Silent,
        Err(error) => PcpAnswer::Refused(error.to_string()),
    }
}

async fn by_nat_pmp(router: &Router, outer: Ipv4Addr) -> Result<MappingLease, natpmp::Failure> {
    let port = NonZeroU16::new(router.local.port()).ok_or(natpmp::Failure::Timeout)?;
    let mapping = natpmp::port_mapping(router.ip.into(), InternetProtocol::Tcp, port, options(port)).await?;
    Ok(MappingLease::requested(mapping, router.local, outer.into()))
}

async fn by_upnp(upnp: UpnpRouter, local: SocketAddr, wanted: u16) -> Result<MappingLease, String> {
    let outer = within(upnp.get_external_ip()).await?;
    let seconds = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
    let add = |port, seconds| upnp.add_port(PortMappingProtocol::TCP, port, local, seconds, DESCRIPTION);
    let asked = timeout(UPNP_TIMEOUT, add(wanted, seconds)).await.map_err(|_| "no answer".to_owned())?;
    let port = match asked {
        Ok(()) => wanted,
        // The node gives it back at the end. If that fails, it stays until somebody removes it at the router.
        Err(AddPortError::OnlyPermanentLeasesSupported) => within(add(wanted, 0)).await.map(|()| wanted)?,
        Err(AddPortError::PortInUse) => {
            within(upnp.add_any_port(PortMappingProtocol::TCP, local, seconds, DESCRIPTION)).await?
        }
        Err(error) => return Err(error.to_string()),
    };
    Ok(MappingLease {
        held: HeldMapping::Upnp(upnp),
        local,
        external: SocketAddr::new(outer, port),
        lifetime: LIFETIME,
    })
}

impl MappingLease {
    fn requested(mapping: crab_nat::PortMapping, local: SocketAddr, outer: IpAddr) -> Self {
        let external = SocketAddr::new(outer, mapping.external_port().get());
        let lifetime = Duration::from_secs(mapping.lifetime().into());
        Self { held: HeldMapping::Requested(mapping), local, external, lifetime }
    }
}

/// Searches for a router that speaks UPnP. Anyone on the network may answer; only the default router counts.
async fn find_upnp(router: &Router) -> Option<UpnpRouter> {
    let options = SearchOptions {
        // It also says on which network to search.
        bind_addr: SocketAddr::new(router.local.ip(), 0),
        timeout: Some(UPNP_SEARCH_TIMEOUT),
        single_search_timeout: Some(UPNP_SEARCH_TIMEOUT),
        ..SearchOptions::default()
    };
    match timeout(UPNP_SEARCH_TIMEOUT, aio::tokio::search_gateway(options)).await {
        Ok(Ok(found)) if found.addr.ip() == IpAddr::V4(router.ip) => Some(found),
        Ok(Ok(_)) => {
            tracing::debug!("another machine than the router offers to map ports; it is not asked");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "no router answers UPnP");
            None
        }
        Err(_) => None,
    }
}

async fn within<T, E: std::fmt::Display>(request: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(UPNP_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn options(port: NonZeroU16) -> PortMappingOptions {
    PortMappingOptions {
        external_port: Some(port),
        lifetime_seconds: u32::try_from(LIFETIME.as_secs()).ok(),
        timeout_config: Some(TIMING),
    }
}

fn protocol_of(mapping: &crab_nat::PortMapping) -> MappingProtocol {
    match mapping.mapping_type() {
        PortMappingType::NatPmp => MappingProtocol::NatPmp,
        PortMappingType::Pcp { .. } => MappingProtocol::Pcp,
    }
}

fn is_spoken(answer: &Result<Ipv4Addr, natpmp::Failure>) -> bool {
    !matches!(answer, Err(natpmp::Failure::Timeout | natpmp::Failure::Socket(_) | natpmp::Failure::InvalidResponse(_)))
}
