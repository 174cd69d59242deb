//! Against coturn, the server that people run (Debian's package `coturn`). Without it these tests are reported as skipped.

mod coturn;
mod proxies;
mod relaying;
mod relays;
mod secure;
mod server_side;
