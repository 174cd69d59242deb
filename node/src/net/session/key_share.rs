//! The key share of a ClientHello, made before it: the proof in its server name is bound to it.
//!
//! rustls makes key shares itself, from groups that live as long as the program. The group here gives it the one that is ready on this
//! thread, in the very call that makes the connection.
//!
//! What it is not: key exchange; that is the library's.

use std::cell::RefCell;

use keyferry_proto::dialling::KeyShare;
use rustls::{
    NamedGroup,
    crypto::{ActiveKeyExchange, SupportedKxGroup, aws_lc_rs::kx_group::X25519},
};

thread_local! {
    static READY: RefCell<Option<Box<dyn ActiveKeyExchange>>> = const { RefCell::new(None) };
}

/// X25519, with the key that is ready if there is one.
#[derive(Debug)]
pub(super) struct ReadyX25519;

impl SupportedKxGroup for ReadyX25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        READY.take().map_or_else(|| X25519.start(), Ok)
    }

    fn name(&self) -> NamedGroup {
        X25519.name()
    }

    fn fips(&self) -> bool {
        X25519.fips()
    }
}

/// A key for one ClientHello.
pub(super) struct ReadyKey(Box<dyn ActiveKeyExchange>);

impl ReadyKey {
    /// Makes a key.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        X25519.start().map(Self)
    }

    /// Its public half.
    pub(super) fn share(&self) -> Result<KeyShare, rustls::Error> {
        let share = self.0.pub_key().try_into().map(KeyShare);
        share.map_err(|_| rustls::Error::General("a key of X25519 has 32 bytes".to_owned()))
    }

    /// Makes the ClientHello with this key; `begin` makes just one, in this call.
    pub(super) fn begin<T>(self, begin: impl FnOnce() -> T) -> T {
        READY.set(Some(self.0));
        let begun = begin();
        READY.take();
        begun
    }
}
