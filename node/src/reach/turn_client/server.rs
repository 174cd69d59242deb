//! A TURN server for this node to use: where it is, as which user, and how to check its certificate.
//!
//! What it is not: a connection.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use keyferry_turn::long_term::UserCredentials;
use rustls::ClientConfig;

use super::{
    proxy::Proxy,
    tls::{self, Trust, TrustError},
    uri::{TurnUri, UriError},
};

/// One TURN server.
#[derive(Clone)]
pub struct TurnServer {
    /// A name or an address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whether TURN runs within TLS.
    pub(super) secure: bool,
    pub(super) credentials: Option<UserCredentials>,
    pub(super) trust: Trust,
    pub(super) proxy: Option<Proxy>,
    /// Made once, so that data connections resume the TLS session of the control connection.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl TurnServer {
    /// A server at a name or an address, with TLS (`turns:`) or without.
    pub fn new(host: impl Into<String>, port: u16, secure: bool) -> Self {
        let (credentials, trust, proxy, tls) = (None, Trust::System, None, Arc::default());
        Self { host: host.into(), port, secure, credentials, trust, proxy, tls }
    }

    /// Reads `turn:[user:password@]host[:port][?transport=tcp]` or `turns:…` (RFC 7065, with the user in front as people write it).
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let TurnUri { secure, host, port, credentials } = TurnUri::parse(text)?;
        Ok(Self { credentials, ..Self::new(host, port, secure) })
    }

    /// Uses the server as this user.
    pub fn with_credentials(mut self, credentials: UserCredentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Checks the certificate against this.
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self.tls = Arc::default();
        self
    }

    /// Reaches the server through this proxy.
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Whether two stand for the same server and the same user on it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let user = |server: &Self| server.credentials.as_ref().map(|credentials| credentials.username().to_owned());
        self.is_where(other) && user(self) == user(other)
    }

    /// Whether two stand for the same server, whoever uses it.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        (&self.host, self.port, self.secure) == (&other.host, other.port, other.secure)
    }

    pub(super) fn tls_config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = Arc::new(tls::client_config(&self.trust)?);
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

/// Where it is, without the user: `turns:turn.example.org:5349`.
impl fmt::Display for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "turns" } else { "turn" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}:[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}:{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.as_ref().map(UserCredentials::username);
        let proxy = self.proxy.as_ref().map(ToString::to_string);
        write!(f, "TurnServer({self}, user {user:?}, {:?}, proxy {proxy:?})", self.trust)
    }
}
