//! Log lines on standard error, for `-v`.
//!
//! What it is not: notices, which are for everyone and come as events.

use std::io::{self, Write};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use super::screen::Bars;

/// The environment variable that says what to log, in the syntax of `tracing_subscriber::EnvFilter`.
pub const LOG_VARIABLE: &str = "KEYFERRY_LOG";

/// Starts logging at the level that so many `-v` ask for.
pub fn start(verbose: u8, bars: Bars) {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new(filter_for(verbose)));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(bars.visible()).with_writer(BesideBars(bars));
    // It fails only if something logs already, as in tests.
    let _ = subscriber.try_init();
}

fn filter_for(verbose: u8) -> &'static str {
    match verbose {
        0 => "off",
        // stun-types warns of each malformed message that a stranger sends, libp2p's request-response of each stream too many.
        1 => "warn,stun_types=error,libp2p_request_response=error,keyferry=info",
        2 => "info,stun_types=error,libp2p_request_response=error,keyferry=debug",
        _ => "debug,keyferry=trace",
    }
}

struct BesideBars(Bars);

struct Line {
    bars: Bars,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bars: self.0.clone(), bytes: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        self.bars.aside(|| io::stderr().write_all(&bytes))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody to tell that standard error is gone.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_filter_that_is_understood() {
        for verbose in 0..5 {
            EnvFilter::try_new(filter_for(verbose)).unwrap();
        }
    }
}
