//! What a pool may reach of the host's network: its servers, and nothing else.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt, ready};
use tokio::net::TcpStream;
use weir_config::model::{External, ServerAddress};

use crate::network::Network;

/// See the module's documentation. Names are those of the configuration, addresses those that the pool's owner has
/// permitted last.
#[derive(Debug)]
pub(crate) struct Reach {
    network: Arc<dyn Network>,
    names: BTreeSet<ServerAddress>,
    permitted: ArcSwap<BTreeSet<SocketAddr>>,
}

impl Reach {
    /// As yet, no address.
    pub(crate) fn new(network: Arc<dyn Network>, external: &External) -> Self {
        let names = external.addresses.iter().cloned().collect();
        Self { network, names, permitted: ArcSwap::default() }
    }

    /// From now on these addresses.
    pub(crate) fn permit(&self, addresses: BTreeSet<SocketAddr>) {
        self.permitted.store(Arc::new(addresses));
    }
}

impl Network for Reach {
    fn connect(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> {
        if self.permitted.load().contains(&address) {
            return self.network.connect(address);
        }
        ready(Err(refused(format!("{address} is no server of this pool")))).boxed()
    }

    fn resolve(&self, name: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        if self.names.contains(&ServerAddress::Name { name: name.to_owned(), port }) {
            return self.network.resolve(name, port);
        }
        ready(Err(refused(format!("{name}:{port} is no address of this pool")))).boxed()
    }
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;
    use crate::network::OwnNetwork;

    #[tokio::test]
    async fn only_what_is_permitted_is_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = ServerAddress::Name { name: "localhost".to_owned(), port: 80 };
        let external = External { addresses: vec![name], resolve: Duration::from_secs(1) };
        let reach = Reach::new(Arc::new(OwnNetwork), &external);
        let denied =
            |result: io::Result<TcpStream>| result.unwrap_err().kind() == io::ErrorKind::PermissionDenied;
        assert!(denied(reach.connect(address).await));
        reach.permit([address].into());
        reach.connect(address).await.unwrap();
        let other_port = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
        assert!(denied(reach.connect(other_port).await));
        reach.permit(BTreeSet::new());
        assert!(denied(reach.connect(address).await));

        reach.resolve("localhost", 80).await.unwrap();
        let refused = reach.resolve("localhost", 81).await.unwrap_err();
        assert_eq!(refused.to_string(), "localhost:81 is no address of this pool");
    }
}
