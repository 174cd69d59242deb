//! A proxy in front of a server, for closed networks: HTTP CONNECT (RFC 9110 §9.3.6) or SOCKS5 (RFC 1928, RFC 1929).
//!
//! The server's name is resolved by the proxy. hyper-util speaks both protocols; why, is in `docs/decisions/0006`.
//!
//! What it is not: a proxy for anything but the connections to TURN servers.

use std::{fmt, io, task};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::{
    client::legacy::connect::proxy::{SocksV5, Tunnel},
    rt::TokioIo,
};
use keyferry_turn::long_term::UserCredentials;
use tokio::net::TcpStream;
use tower_service::Service;

use super::uri;

/// RFC 1928 §3. Proxies of HTTP have no port of their own; this is what most use.
const DEFAULT_SOCKS_PORT: u16 = 1080;
const DEFAULT_HTTP_PORT: u16 = 8080;
/// RFC 1929 §2: a length is one byte.
const MAX_SOCKS_TEXT: usize = 255;

/// A proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    protocol: Protocol,
    host: String,
    port: u16,
    credentials: Option<UserCredentials>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Socks5,
}

/// Text that is no proxy, or a proxy that does not help.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The user's fault.
    #[error(
        "a proxy is written http://host:port or socks5://host:port, with user:password@ before the host if it asks for them"
    )]
    Text,
    /// A user name or password longer than SOCKS5 can carry. The user's fault.
    #[error("the user name and password for a SOCKS5 proxy have {MAX_SOCKS_TEXT} bytes at most")]
    LongCredentials,
    /// No connection to the proxy.
    #[error("no connection to the proxy {proxy}: {source}")]
    Connect {
        /// The proxy.
        proxy: String,
        /// Why.
        source: io::Error,
    },
    /// It refuses, or does not reach the server.
    #[error("the proxy {proxy} does not connect to the server: {reason}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// In the words of the library.
        reason: String,
    },
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]` or `socks5://…`.
    pub fn parse(text: &str) -> Result<Self, ProxyError> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(ProxyError::Text)?;
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Protocol::Http, DEFAULT_HTTP_PORT),
            "socks5" | "socks5h" => (Protocol::Socks5, DEFAULT_SOCKS_PORT),
            _ => return Err(ProxyError::Text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, address) = rest.rsplit_once('@').map_or((None, rest), |(user, address)| (Some(user), address));
        let (host, port) = uri::host_and_port(address, default_port).map_err(|_| ProxyError::Text)?;
        let credentials = user.map(credentials).transpose()?;
        let is_long = |user: &UserCredentials| user.username().len().max(user.password().len()) > MAX_SOCKS_TEXT;
        if protocol == Protocol::Socks5 && credentials.as_ref().is_some_and(is_long) {
            return Err(ProxyError::LongCredentials);
        }
        Ok(Self { protocol, host, port, credentials })
    }

    /// Connects to a server through the proxy. The caller sets the deadline.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let direct = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = direct.map_err(|source| ProxyError::Connect { proxy: self.to_string(), source })?;
        let nodelay = stream.set_nodelay(true);
        nodelay.map_err(|source| ProxyError::Connect { proxy: self.to_string(), source })?;
        let target = authority(host, port).ok_or(ProxyError::Text)?;
        let connected = ConnectedProxy(Some(stream));
        let user = self.credentials.as_ref();
        let through = match self.protocol {
            Protocol::Http => {
                let mut tunnel = Tunnel::new(target.clone(), connected);
                if let Some(user) = user {
                    tunnel = tunnel.with_auth(basic(user).ok_or(ProxyError::Text)?);
                }
                tunnel.call(target).await.map_err(in_words)
            }
            Protocol::Socks5 => {
                let mut socks = SocksV5::new(target.clone(), connected);
                if let Some(user) = user {
                    socks = socks.with_auth(user.username().to_owned(), user.password().to_owned());
                }
                socks.call(target).await.map_err(in_words)
            }
        };
        let through = through.map_err(|reason| ProxyError::Refused { proxy: self.to_string(), reason })?;
        Ok(through.into_inner())
    }
}

/// Without the user.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Http => "http",
            Protocol::Socks5 => "socks5",
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The connection to the proxy, in the form in which hyper-util wants to make it.
struct ConnectedProxy(Option<TcpStream>);

impl Service<Uri> for ConnectedProxy {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}

fn credentials(user: &str) -> Result<UserCredentials, ProxyError> {
    let (name, password) = user.split_once(':').ok_or(ProxyError::Text)?;
    let decoded = |text| uri::decoded(text).map_err(|_| ProxyError::Text);
    UserCredentials::new(decoded(name)?, decoded(password)?).map_err(|_| ProxyError::Text)
}

fn authority(host: &str, port: u16) -> Option<Uri> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Uri::builder().scheme("http").authority(format!("{host}:{port}")).path_and_query("/").build().ok()
}

/// RFC 7617 §2.
fn basic(user: &UserCredentials) -> Option<HeaderValue> {
    let text = format!("{}:{}", user.username(), user.password());
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(text))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn in_words(error: impl std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_read_and_shown_without_the_password() {
        let cases = [
            ("http://proxy.example", "http://proxy.example:8080"),
            ("HTTP://u:s3cret@proxy:3128/", "http://proxy:3128"),
            ("socks5://127.0.0.1", "socks5://127.0.0.1:1080"),
            ("socks5h://us%3Aer:s3cret@[::1]:9050", "socks5://[::1]:9050"),
        ];
        for (text, shown) in cases {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(proxy.to_string(), shown);
            assert!(!format!("{proxy:?}").contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused() {
        for text in
            ["", "proxy:3128", "https://proxy", "socks4://proxy", "http://", "http://user@proxy", "http://proxy:0"]
        {
            assert!(Proxy::parse(text).is_err(), "{text}");
        }
        let long = format!("socks5://{}:p@host", "u".repeat(256));
        assert!(matches!(Proxy::parse(&long), Err(ProxyError::LongCredentials)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "((http|socks5)://)?[ -~é%@:\\[\\]]{0,40}") {
            let _ = Proxy::parse(&text);
        }
    }
}
