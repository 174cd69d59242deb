//! Durations as programs like them: numbers, with a fraction.
//!
//! What it is not: durations as people like them (`cli::text`).

/// Durations as a number of seconds, with a fraction.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        duration.as_secs_f64().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// The same, or null.
    pub(crate) mod optional {
        use super::{Deserialize, Deserializer, Duration, Error, Serialize, Serializer};

        pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
            duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(deserializer)?;
            seconds.map(Duration::try_from_secs_f64).transpose().map_err(D::Error::custom)
        }
    }
}

/// Durations as a number of milliseconds, with a fraction.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        (duration.as_micros() as f64 / 1000.0).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)? / 1000.0).map_err(D::Error::custom)
    }
}
