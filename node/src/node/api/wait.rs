//! How long a fetch is to wait for somebody who is away, and how long it has waited.
//!
//! What it is not: the decision about when that is over (`node::waiting`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// How long a fetch waits by itself for a node that it knows.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10 * 60);
/// How long it looks for one that it does not know, which may not be there at all; with the start of the program that stays below 10 s.
pub const LOOK_FOR: Duration = Duration::from_secs(8);
/// What is as long as forever.
const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long a fetch waits for somebody who is away.
///
/// As text (`--wait`): a duration such as `90s`, `10m` or `1h 30m`; `forever`; `none`; or `known` for the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Wait {
    /// [`DEFAULT_WAIT`] for a node that is known: it was reached before in this fetch, or an offer of it was opened, or it is a contact.
    /// [`LOOK_FOR`] for others.
    #[default]
    Known,
    /// No longer than it takes to try once, and [`LOOK_FOR`] at most.
    None,
    /// So long, also for one that was never heard of.
    For(Duration),
    /// Until it is there.
    Forever,
}

impl From<Duration> for Wait {
    fn from(duration: Duration) -> Self {
        Self::For(duration)
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "known" => Ok(Self::Known),
            "none" => Ok(Self::None),
            "forever" => Ok(Self::Forever),
            _ => match humantime::parse_duration(text) {
                Ok(duration) => Ok(Self::For(duration.min(MAX_WAIT))),
                Err(_) => Err("this is not a duration such as 90s, 10m or 2h, nor one of: forever, none".to_owned()),
            },
        }
    }
}

impl TryFrom<String> for Wait {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Wait> for String {
    fn from(wait: Wait) -> Self {
        wait.to_string()
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known => f.write_str("known"),
            Self::None => f.write_str("none"),
            Self::For(duration) => humantime::format_duration(*duration).fmt(f),
            Self::Forever => f.write_str("forever"),
        }
    }
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitOver {
    /// How long it was to be.
    pub wait: Wait,
    /// How long it was.
    pub waited: Duration,
    /// Whether whoever was waited for was there lately, by all that this node knows, or is a contact.
    pub is_known: bool,
    /// Whether waiting would not have helped.
    pub(in crate::node) is_final: bool,
}

impl fmt::Display for WaitOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.waited.as_secs();
        match self.wait {
            Wait::None => f.write_str("; nobody is waited for"),
            _ if seconds == 0 => Ok(()),
            _ => write!(f, ", in {}", humantime::format_duration(Duration::from_secs(seconds))),
        }
    }
}
