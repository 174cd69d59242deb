//! What tells, without reading a file, whether its content has changed, and how far that is trusted.
//!
//! A stamp that is still the same says nothing of two things: a change in the same tick of the file system's clock as the one
//! before, and a power cut that took what never reached the disk. So a young stamp vouches for nothing, and any other only
//! until the machine starts anew. What nothing vouches for is hashed when it is used.
//!
//! What it is not: proof. A file whose bytes were hashed as they were read needs no stamp.

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use serde::{Deserialize, Serialize};

use super::clock;

/// The longest step in which the clock of a file system ticks: a file that was changed this recently may change again and look the
/// same.
const LONGEST_STEP_NANOS: i128 = 2_000_000_000;
/// File systems that keep times in long steps have whole multiples of this.
const COARSE_NANOS: i128 = 10_000_000;
/// Those that keep nanoseconds take them from a clock of their kernel, which ticks at least as often as every 16 ms; twice that.
const SHORT_STEP_NANOS: i128 = 40_000_000;
/// Where Linux says in which boot it is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The part of a file's metadata that tells whether its content has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    /// Length, in bytes.
    pub(crate) size: u64,
    /// Time of the last change of the content, in nanoseconds since 1970. Whoever owns the file can set it.
    pub(crate) modified: i128,
    /// Time of the last change of content or metadata, in nanoseconds since 1970. Nobody can set it.
    pub(crate) changed: i128,
    /// Which file it is.
    pub(crate) file: FileId,
}

/// What tells a file from every other on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// One run of the machine, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootId(u128);

/// What a store asks of the machine beside its disk. Tests say it themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// The boot that it is in.
    pub(crate) boot: BootId,
    /// What time it is, in nanoseconds since 1970.
    pub(crate) now_nanos: fn() -> i128,
}

/// How far a stamp that was taken when the file was hashed vouches for the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StampTrust {
    /// For as long as it stays the same: the bytes were hashed as the disk had them.
    Always,
    /// Likewise, but in this boot only: the bytes, or the stamp, may never have reached the disk.
    InBoot(BootId),
    /// Not at all: it was young, or nobody has hashed the file.
    Never,
    /// Not at all either; but the file was hashed under a stamp that differed in the time of its metadata alone, as a new name does it.
    Carried,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    #[cfg(test)]
    pub(crate) fn numbered(inode: u64) -> Self {
        Self { device: 1, inode }
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            size: metadata.len(),
            modified: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanos(metadata.ctime(), metadata.ctime_nsec()),
            file: FileId::of(metadata),
        }
    }

    /// Whether the file may change again without its stamp telling: its last change is recent, or lies ahead.
    pub(crate) fn is_young(&self, machine: &Machine) -> bool {
        let step = if self.changed % COARSE_NANOS == 0 { LONGEST_STEP_NANOS } else { SHORT_STEP_NANOS };
        (machine.now_nanos)() - self.changed < step
    }
}

impl BootId {
    /// Reads which boot this is; one of this process alone where the machine does not say.
    fn read() -> Self {
        let text = std::fs::read_to_string(BOOT_ID_FILE).unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        Self(u128::from_str_radix(&digits, 16).unwrap_or_else(|_| rand::random()))
    }

    #[cfg(test)]
    pub(crate) fn numbered(number: u128) -> Self {
        Self(number)
    }
}

impl std::fmt::Display for BootId {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Machine {
    /// This machine.
    pub(crate) fn here() -> Self {
        Self { boot: BootId::read(), now_nanos: clock::now_nanos }
    }
}

impl StampTrust {
    /// What a stamp is good for that was taken just now, before the file was hashed.
    pub(crate) fn in_new(stamp: &Stamp, machine: &Machine) -> Self {
        Self::Never.after_hashing(stamp, machine)
    }

    /// What the stamp of a file is good for whose bytes this process has written, and given this time of their last change, in nanoseconds
    /// since 1970: whoever writes it later leaves another time, unless it was given one that is about now.
    pub(crate) fn in_written(stamp: &Stamp, modified_nanos: i128, machine: &Machine) -> Self {
        let is_telling = stamp.modified == modified_nanos
            && stamp.modified.abs_diff(stamp.changed) > LONGEST_STEP_NANOS.unsigned_abs();
        if is_telling { Self::InBoot(machine.boot) } else { Self::Never }
    }

    /// What the same stamp is good for once the file has been hashed again.
    pub(crate) fn after_hashing(self, stamp: &Stamp, machine: &Machine) -> Self {
        match self {
            Self::Always => Self::Always,
            // What has outlived a boot came from the disk.
            Self::InBoot(boot) if boot != machine.boot => Self::Always,
            Self::InBoot(_) | Self::Never | Self::Carried if stamp.is_young(machine) => Self::Never,
            Self::InBoot(_) | Self::Never | Self::Carried => Self::InBoot(machine.boot),
        }
    }

    /// Whether a stamp that is still the same vouches for the file.
    pub(crate) fn holds(self, machine: &Machine) -> bool {
        match self {
            Self::Always => true,
            Self::InBoot(boot) => boot == machine.boot,
            Self::Never | Self::Carried => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_here_is_vouched_for_by_the_time_that_it_was_given_unless_that_is_about_now() {
        const NOW: i128 = 1_790_000_000_000_000_000;
        let machine = Machine { boot: BootId::numbered(1), now_nanos: || NOW };
        let trust = |modified, given| {
            let stamp = Stamp { size: 1, modified, changed: NOW, file: FileId::numbered(1) };
            StampTrust::in_written(&stamp, given, &machine)
        };
        let old = NOW - LONGEST_STEP_NANOS - 1;
        assert_eq!(trust(old, old), StampTrust::InBoot(machine.boot));
        assert_eq!(trust(-5, -5), StampTrust::InBoot(machine.boot));
        // The file system keeps another time, or somebody has written it since.
        assert_eq!(trust(old, old + 1), StampTrust::Never);
        assert_eq!(trust(NOW, old), StampTrust::Never);
        assert_eq!(trust(NOW - LONGEST_STEP_NANOS, NOW - LONGEST_STEP_NANOS), StampTrust::Never);
    }

    #[test]
    fn a_stamp_is_young_for_the_longest_step_of_the_clock_that_it_was_taken_from() {
        const NOW: i128 = 1_000_000_000_000;
        let machine = Machine { boot: BootId::numbered(1), now_nanos: || NOW };
        for (nanos_ago, young) in [
            (SHORT_STEP_NANOS - 1, true),
            (SHORT_STEP_NANOS + 1, false),
            // Too round for a clock that ticks in short steps.
            (SHORT_STEP_NANOS, true),
            (LONGEST_STEP_NANOS - COARSE_NANOS, true),
            (LONGEST_STEP_NANOS, false),
            // It lies ahead.
            (-1, true),
        ] {
            let changed = NOW - nanos_ago;
            let stamp = Stamp { size: 1, modified: changed, changed, file: FileId::numbered(1) };
            assert_eq!(stamp.is_young(&machine), young, "{nanos_ago} ns ago");
        }
    }
}
