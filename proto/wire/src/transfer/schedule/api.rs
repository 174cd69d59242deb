//! What the driver and the schedule tell each other.
//!
//! What it is not: what is made of it; see the parent module.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crate::transfer::units::UnitRanges;

/// A provider of the content: a session to one node, numbered by the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProviderId(pub u64);

/// One request to one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The settings of a schedule.
#[derive(Debug, Clone)]
pub struct ScheduleConfig {
    /// How long a provider may bring nothing before it is dropped.
    pub stall: Duration,
    /// A request that takes less than this is left whole, and one that brings nothing for this long may be taken over.
    pub slow: Duration,
    /// The least number of units that is worth a request of its own while the provider that has them is quick.
    pub min_split: u64,
    /// The greatest number of providers at a time.
    pub max_providers: usize,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { stall: Duration::from_secs(30), slow: Duration::from_secs(3), min_split: 128, max_providers: 16 }
    }
}

/// Why the schedule gives a provider up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It brought nothing for too long.
    Stalled,
    /// It ended request after request without bringing anything.
    Empty,
}

/// What the driver tells the schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleInput {
    /// A provider can be asked: one that is not there.
    ProviderAdded(ProviderId),
    /// A provider can no longer be asked; its request has ended. It may be added again.
    ProviderLost(ProviderId),
    /// The provider is asked over another session from now on, by a better path. Its running request is to end where it is; what
    /// it has brought so far says nothing of how quick it will be.
    ProviderMoved(ProviderId),
    /// The layout is known.
    Planned {
        /// How many units it has.
        total_units: u64,
        /// The units that are there already, beside those that were reported verified.
        have: UnitRanges,
    },
    /// These units came from the provider, were proven, and are kept.
    Verified {
        /// The provider.
        provider: ProviderId,
        /// The units.
        units: Range<u64>,
    },
    /// The provider has brought something of use that is not kept yet, such as a part of a list of files, or is waiting
    /// for this side: it is not silent.
    Alive(ProviderId),
    /// The stream of a request has ended, or was closed because of [`ScheduleOutput::Shorten`].
    RequestEnded {
        /// The provider.
        provider: ProviderId,
        /// The request.
        request: RequestId,
    },
    /// The provider does not send these units (those of one item).
    ItemRefused {
        /// The provider.
        provider: ProviderId,
        /// The units.
        units: Range<u64>,
    },
    /// The time of [`ScheduleOutput::Timeout`] has come.
    Timeout,
}

/// What the schedule tells the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleOutput {
    /// Ask this provider, which has no other request, for these units.
    Request {
        /// The provider.
        provider: ProviderId,
        /// The number of the request.
        request: RequestId,
        /// The units.
        ranges: UnitRanges,
    },
    /// Read this request only up to this unit, then close its stream and report its end. Of several, the lowest unit counts.
    Shorten {
        /// The provider.
        provider: ProviderId,
        /// The request.
        request: RequestId,
        /// The first unit that is not wanted of it any longer.
        end_unit: u64,
    },
    /// Close the request of this provider, which is not asked again (unless it is added again).
    Drop {
        /// The provider.
        provider: ProviderId,
        /// Why.
        why: DropReason,
    },
    /// All units of the layout are there.
    Complete,
    /// Nobody is left to be asked for what is missing. Another provider makes the schedule go on.
    Stuck {
        /// What is missing.
        missing: UnitRanges,
    },
    /// Nothing else now: wait for an input, or until this time at most and then report [`ScheduleInput::Timeout`].
    Timeout(Option<Instant>),
}

/// What the driver should not have told. Each is the driver's fault, and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// There are enough providers.
    #[error("{limit} providers are enough")]
    TooManyProviders {
        /// How many there may be.
        limit: usize,
    },
    /// The layout was known before.
    #[error("the layout was reported twice")]
    AlreadyPlanned,
    /// Units beyond the layout.
    #[error("units up to {end} were reported where the layout has {total_units}")]
    OutOfRange {
        /// The end of the reported range.
        end: u64,
        /// The number of units in the layout.
        total_units: u64,
    },
}
