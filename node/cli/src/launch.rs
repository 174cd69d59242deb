//! What the command line needs of the library beside carrying out commands: to open a data folder, and to start and stop a
//! node on it.
//!
//! What it is not: the node itself ([`keyferry::Node`]).

use std::{path::Path, sync::Arc};

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use keyferry::{
    Node, NodeConfig, NodeSecret,
    control::{Event, Failure, Runner},
    data_dir::{Home, HomeError},
};

/// A data folder, as it was found.
#[derive(Debug)]
pub enum Folder {
    /// It is open, and has no key yet.
    Empty(Home),
    /// It is open, and so is its key.
    Open(Home, Box<NodeSecret>),
    /// It is open, and its key is encrypted.
    Encrypted(Home),
    /// Another process has it open.
    Busy,
}

/// A node in this process.
pub trait OwnNode: Runner {
    /// What happens from now on that no command asked for.
    fn happenings(&self) -> BoxStream<'static, Event>;

    /// Leaves the network in order.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// Starts nodes in this process.
pub trait Launcher: Send + Sync {
    /// Opens a data folder, which is made if need be, and its key if there is one.
    ///
    /// # Errors
    ///
    /// If it cannot be used, with what to do about it.
    fn open(&self, home: &Path) -> Result<Folder, Failure>;

    /// Starts a node on an open folder, with its key.
    ///
    /// # Errors
    ///
    /// If it cannot be started, with what to do about it.
    fn start(
        &self,
        home: Home,
        secret: NodeSecret,
        config: NodeConfig,
    ) -> BoxFuture<'_, Result<Arc<dyn OwnNode>, Failure>>;
}

/// Starts real nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealLauncher;

impl Launcher for RealLauncher {
    fn open(&self, home: &Path) -> Result<Folder, Failure> {
        let opened = match Home::open(home) {
            Err(HomeError::Busy { .. }) => return Ok(Folder::Busy),
            opened => opened?,
        };
        if !opened.identity_path().exists() {
            return Ok(Folder::Empty(opened));
        }
        match opened.identity() {
            Ok(secret) => Ok(Folder::Open(opened, Box::new(secret))),
            Err(HomeError::PassphraseNeeded { .. }) => Ok(Folder::Encrypted(opened)),
            Err(error) => Err(error.into()),
        }
    }

    fn start(
        &self,
        home: Home,
        secret: NodeSecret,
        config: NodeConfig,
    ) -> BoxFuture<'_, Result<Arc<dyn OwnNode>, Failure>> {
        async move { Ok(Node::start(home, secret, config).await? as Arc<dyn OwnNode>) }.boxed()
    }
}

impl OwnNode for Node {
    fn happenings(&self) -> BoxStream<'static, Event> {
        Node::happenings(self)
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Node::shutdown(self).boxed()
    }
}
