//! The rights that new files do not get. A process has one umask for all its threads, so whoever writes for another process gives the rights itself.

use std::fs;

use serde::{Deserialize, Serialize};

/// The rights that the files of a process do not get (umask(2)): permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Umask(u32);

impl Umask {
    /// That of this process; none where the system does not tell, as only Linux does without changing it.
    pub fn of_process() -> Option<Self> {
        parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    /// What is left of these rights.
    pub(crate) fn apply(self, rights: u32) -> u32 {
        rights & !self.0
    }
}

fn parse(status: &str) -> Option<Umask> {
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(digits.trim(), 8).ok().filter(|bits| *bits <= 0o777).map(Umask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_in_octal_and_takes_rights_away() {
        let umask = parse("Name:\tx\nUmask:\t0027\nState:\tR\n").unwrap();
        assert_eq!((umask.apply(0o777), umask.apply(0o666)), (0o750, 0o640));
        for odd in ["", "Umask:\t", "Umask:\t9", "Umask:\t7777"] {
            assert_eq!(parse(odd), None, "{odd:?}");
        }
        if cfg!(target_os = "linux") {
            assert!(Umask::of_process().is_some());
        }
    }
}
