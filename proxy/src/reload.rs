//! Another configuration for a proxy that serves.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use weir_config::change::Change;
use weir_config::model::{Config, Listener};

use crate::doors::NewDoor;
use crate::listeners::{ListenSocket, OpenSocket};
use crate::serve::{ServeError, new_doors};

/// The way to a proxy that serves. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Reloader {
    orders: mpsc::Sender<Order>,
    opened: watch::Receiver<bool>,
}

/// What a proxy is told by its [`Reloader`], for [`crate::serve_reloadable`].
#[derive(Debug)]
pub struct Orders {
    orders: mpsc::Receiver<Order>,
    opened: watch::Sender<bool>,
}

/// Listeners that are to be closed and opened, with all that it takes.
#[derive(Debug)]
pub struct ListenerChange {
    pub(crate) closed: Vec<Listener>,
    pub(crate) opened: Vec<NewDoor>,
}

/// What a proxy is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// To become what another configuration says.
    Change(Reload),
    /// To show its listeners.
    Show(oneshot::Sender<io::Result<Vec<OpenSocket>>>),
    /// To leave the listeners to others.
    Leave,
}

/// One reload.
#[derive(Debug)]
pub(crate) struct Reload {
    pub(crate) config: Arc<Config>,
    pub(crate) listeners: ListenerChange,
    pub(crate) done: oneshot::Sender<Result<(), ServeError>>,
}

/// A reloader, and what it tells.
pub fn reloader() -> (Reloader, Orders) {
    let (sender, receiver) = mpsc::channel(1);
    let (opened, watched) = watch::channel(false);
    (Reloader { orders: sender, opened: watched }, Orders { orders: receiver, opened })
}

/// Listeners that `change` adds and that take the place of none of the same address: a socket is to be bound for each.
pub fn listeners_to_bind(change: &Change) -> impl Iterator<Item = &Listener> {
    change.listeners_added.iter().filter(|added| takes_over(change, added).is_none())
}

/// The listener whose socket this one gets. Port 0 is another port each time.
fn takes_over<'a>(change: &'a Change, added: &Listener) -> Option<&'a Listener> {
    let former = change.listeners_removed.iter().find(|removed| removed.address == added.address);
    former.filter(|_| !added.address.is_any_port())
}

impl ListenerChange {
    /// What `change` says of listeners; `sockets` are those of [`listeners_to_bind`], in their order.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub fn new(change: &Change, sockets: Vec<ListenSocket>) -> Result<Self, ServeError> {
        let mut sockets = sockets.into_iter();
        let socket = |added| match takes_over(change, added) {
            Some(_) => None,
            None => sockets.next(),
        };
        let of_each = change.listeners_added.iter().map(socket);
        let opened = new_doors(&change.listeners_added, of_each)?;
        Ok(Self { closed: change.listeners_removed.clone(), opened })
    }
}

impl Reloader {
    /// From now on requests take the routes of `config`, whose pools are there, and listeners are what `listeners` says.
    /// Requests whose header has been read keep their routes; connections of listeners that are closed end with the
    /// response that is under way, or when they have been idle for their time.
    ///
    /// # Errors
    /// If the configuration cannot be used; requests go where they went before then. [`ServeError::Ended`]: nobody serves
    /// any more.
    pub async fn reload(&self, config: Arc<Config>, listeners: ListenerChange) -> Result<(), ServeError> {
        let (done, reloaded) = oneshot::channel();
        self.tell(Order::Change(Reload { config, listeners, done })).await?;
        reloaded.await.map_err(|_| ServeError::Ended(None))?
    }

    /// Waits until every listener of the first configuration accepts.
    ///
    /// # Errors
    /// [`ServeError::Ended`]: none of them will.
    pub async fn opened(&self) -> Result<(), ServeError> {
        let mut opened = self.opened.clone();
        opened.wait_for(|opened| *opened).await.map_err(|_| ServeError::Ended(None))?;
        Ok(())
    }

    /// The listeners that there are now, in the order in which they were opened.
    ///
    /// # Errors
    /// If there is no descriptor left; [`ServeError::Ended`] as for [`Self::reload`].
    pub async fn sockets(&self) -> Result<Vec<OpenSocket>, ServeError> {
        let (shown, sockets) = oneshot::channel();
        self.tell(Order::Show(shown)).await?;
        sockets.await.map_err(|_| ServeError::Ended(None))?.map_err(ServeError::Socket)
    }

    /// Has the proxy accept no more, since others do on the same sockets, and drain. Connections that are idle may bring
    /// one request more, for it may be on its way: it is served, and they end with it.
    ///
    /// # Errors
    /// As for [`Self::reload`].
    pub async fn leave(&self) -> Result<(), ServeError> {
        self.tell(Order::Leave).await
    }

    async fn tell(&self, order: Order) -> Result<(), ServeError> {
        self.orders.send(order).await.map_err(|_| ServeError::Ended(None))
    }
}

impl Orders {
    /// The next one; never, when there is no reloader any more.
    pub(crate) async fn next(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }

    /// Tells the [`Reloader`] that all listeners accept.
    pub(crate) fn opened(&self) {
        self.opened.send_replace(true);
    }
}
