//! What happens on a node that no command asked for, and that its owner should see.
//!
//! What it is not: a log, or a history: who is not there misses it.

use std::{convert::Infallible, future::pending, time::Instant};

use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{
    Node,
    api::{Event, SameKeyInfo, UnservedFault, UnservedInfo},
    events::{Events, tell},
};
use crate::content::{
    store::Store,
    transfer::serve::{SourceFault, SourceTrouble},
};

impl Node {
    /// What happens from now on: new versions of shares that follow their folders, files that are shared and cannot be served, and another node
    /// that has this node's key.
    pub fn happenings(&self) -> BoxStream<'static, Event> {
        let store = self.store.clone();
        let troubles = heard(self.server.troubles());
        let troubles = troubles.filter_map(move |trouble| std::future::ready(unserved(&store, trouble)));
        let twins = stream::unfold((), {
            let next = self.next_twin();
            move |()| next().map(|info| Some((Event::SameKey(info), ())))
        });
        stream::select(stream::select(heard(self.happened.subscribe()), troubles), twins).boxed()
    }

    /// Tells of other nodes with this node's key, of whom nobody was told yet.
    pub(super) async fn tell_of_twins(&self, events: &Events) -> Infallible {
        let next = self.next_twin();
        loop {
            let info = next().await;
            tell(events, Event::SameKey(info)).await;
        }
    }

    /// The other node with this node's key that was met lately, if one was.
    pub(super) fn twin(&self) -> Option<SameKeyInfo> {
        let meeting = self.online.as_ref()?.tls.twins().meeting(Instant::now())?;
        Some(SameKeyInfo::new(self.key().to_string(), self.home.identity_path(), meeting))
    }

    /// Waits for what is to be told of a twin. What one takes no other is told.
    fn next_twin(&self) -> impl Fn() -> BoxFuture<'static, SameKeyInfo> + Send + Sync + use<> {
        let twins = self.online.as_ref().map(|online| online.tls.twins().clone());
        let (node, key_file) = (self.key().to_string(), self.home.identity_path());
        move || {
            let (twins, node, key_file) = (twins.clone(), node.clone(), key_file.clone());
            async move {
                match twins {
                    Some(twins) => SameKeyInfo::new(node, key_file, twins.untold().await),
                    None => pending().await,
                }
            }
            .boxed()
        }
    }
}

/// All that is told, as a stream that ends with the teller. Who is slow misses some.
fn heard<T: Clone + Send + 'static>(from: Receiver<T>) -> BoxStream<'static, T> {
    let next = |mut from: Receiver<T>| async move {
        loop {
            match from.recv().await {
                Ok(told) => return Some((told, from)),
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "more happens than is shown"),
                Err(RecvError::Closed) => return None,
            }
        }
    };
    stream::unfold(from, next).boxed()
}

/// None for a version that a newer one has taken the place of: that its files have changed is no news.
fn unserved(store: &Store, trouble: SourceTrouble) -> Option<Event> {
    let SourceTrouble { path, root, fault } = trouble;
    let name = store.root(&root)?.name().cloned();
    let (fault, detail) = match fault {
        SourceFault::Changed => (UnservedFault::Changed, None),
        SourceFault::Gone => (UnservedFault::Gone, None),
        SourceFault::Unreadable(detail) => (UnservedFault::Unreadable, Some(detail)),
    };
    Some(Event::Unserved(UnservedInfo { path, name, fault, detail }))
}
