//! Another configuration for a proxy that serves.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use weir_config::model::Config;

use crate::serve::ServeError;

/// The way to a proxy that serves. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Reloader(mpsc::Sender<Order>);

/// What a proxy is told by its [`Reloader`], for [`crate::serve_reloadable`].
#[derive(Debug)]
pub struct Orders(mpsc::Receiver<Order>);

/// One reload.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) config: Arc<Config>,
    pub(crate) done: oneshot::Sender<Result<(), ServeError>>,
}

/// A reloader, and what it tells.
pub fn reloader() -> (Reloader, Orders) {
    let (sender, receiver) = mpsc::channel(1);
    (Reloader(sender), Orders(receiver))
}

impl Reloader {
    /// Has requests take the routes of `config` from now on, whose pools are there. Requests whose header has been read keep
    /// theirs.
    ///
    /// # Errors
    /// If the configuration cannot be used; all is as before then. [`ServeError::Ended`]: nobody serves any more.
    pub async fn reload(&self, config: Arc<Config>) -> Result<(), ServeError> {
        let (done, reloaded) = oneshot::channel();
        let told = self.0.send(Order { config, done }).await;
        told.map_err(|_| ServeError::Ended(None))?;
        reloaded.await.map_err(|_| ServeError::Ended(None))?
    }
}

impl Orders {
    /// The next one; never, when there is no reloader any more.
    pub(crate) async fn next(&mut self) -> Order {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}
