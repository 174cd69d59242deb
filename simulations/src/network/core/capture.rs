//! A file of the packets of one line, as tcpdump and Wireshark read it.
//!
//! ```text
//! file header   magic a1b2c3d4 | version 2.4 | 8 bytes of zero | snap length 4 | link type 4 (101: raw IP)
//! each packet   seconds 4 | microseconds 4 | captured length 4 | length 4 | the packet
//! ```
//! Numbers are in this machine's order, which the magic tells.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

const MAGIC: u32 = 0xa1b2_c3d4;
const RAW_IP: u32 = 101;

/// The most bytes of one packet that are kept.
const SNAP_LENGTH: usize = 65_535;

/// The most bytes of one file. What comes later is not kept.
const MOST_BYTES: u64 = 512 << 20;

#[derive(Debug)]
pub(super) struct Capture {
    file: BufWriter<File>,
    bytes: u64,
}

impl Capture {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file = BufWriter::new(File::create(path)?);
        for part in [MAGIC.to_ne_bytes(), version(), [0; 4], [0; 4]] {
            file.write_all(&part)?;
        }
        file.write_all(&(SNAP_LENGTH as u32).to_ne_bytes())?;
        file.write_all(&RAW_IP.to_ne_bytes())?;
        Ok(Self { file, bytes: 0 })
    }

    /// Keeps a packet. A file that cannot be written to any more stays as it is.
    pub(super) fn keep(&mut self, packet: &[u8], now: SystemTime) {
        let kept = &packet[..packet.len().min(SNAP_LENGTH)];
        if self.bytes + kept.len() as u64 > MOST_BYTES {
            return;
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let numbers = [since.as_secs() as u32, since.subsec_micros(), kept.len() as u32, packet.len() as u32];
        for number in numbers {
            let _ = self.file.write_all(&number.to_ne_bytes());
        }
        let _ = self.file.write_all(kept);
        self.bytes += 16 + kept.len() as u64;
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.file.flush();
    }
}

fn version() -> [u8; 4] {
    let (major, minor) = (2u16.to_ne_bytes(), 4u16.to_ne_bytes());
    [major[0], major[1], minor[0], minor[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_has_its_header_and_each_packet_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.pcap");
        let mut capture = Capture::create(&path).unwrap();
        capture.keep(&[0x45; 40], UNIX_EPOCH + std::time::Duration::new(7, 9_000));
        drop(capture);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 40);
        let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((number(0), number(20)), (MAGIC, RAW_IP));
        assert_eq!([number(24), number(28), number(32), number(36)], [7, 9, 40, 40]);
    }
}
