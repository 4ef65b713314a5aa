//! Sockets that go from one weir to the one that takes its place.
//!
//! ```text
//!  earlier weir                        later weir
//!  OpenSocket ──its descriptor──> Handed ──same address──> ListenSocket ──Claim::make──> its file is this weir's to remove
//!      └ disown: its file is no more its to remove      └──nobody listens there──> closed by Claim::make
//! ```
//!
//! It is the same socket of the kernel, with the connections that wait to be accepted: whoever accepts, none is lost.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::net::sockopt::socket_acceptconn;
use weir_config::model::{Config, ListenAddress, Listener};

use super::unix::UnixSocket;
use super::{BindError, Kind, ListenSocket, Listeners, bind_one, bind_tcp};

/// Whom a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Clients.
    Http,
    /// Whoever administrates.
    Admin,
}

/// A listening socket of the weir before.
#[derive(Debug)]
pub struct Handed {
    /// Whom it is for.
    pub role: Role,
    /// Its address in the configuration of that weir, as [`ListenAddress`] is displayed.
    pub address: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// A socket that clients reach, and where the configuration says that it is.
#[derive(Debug)]
pub struct OpenSocket {
    pub(crate) address: ListenAddress,
    pub(crate) socket: ListenSocket,
}

/// What is to be done once this weir and no other serves on the sockets that it was handed. Dropped without, nothing of
/// them has changed.
#[derive(Debug, Default)]
pub struct Claim {
    ours: Arc<AtomicBool>,
    adopted: Vec<(ListenSocket, Listener)>,
    unwanted: Vec<ListenSocket>,
}

/// As [`super::bind`], but takes of `handed` those whose address is in `config`.
///
/// # Errors
/// The first address that cannot be bound.
pub fn bind_beside(config: &Config, handed: Vec<Handed>) -> Result<(Listeners, Claim), BindError> {
    let mut heir = Heir { handed, claim: Claim::default() };
    let http = config.listeners.iter().enumerate();
    let http = http.map(|(index, listener)| match heir.adopt(listener) {
        Some(socket) => Ok(socket),
        None => bind_one(|| format!("listener[{index}].address"), listener),
    });
    let http = http.collect::<Result<_, _>>()?;
    let admin = config.admin.as_ref().map(|admin| {
        let address = ListenAddress::Ip(admin.address);
        let handed = heir.take(Role::Admin, &address).and_then(|socket| tcp(socket).ok());
        let error = |source| BindError { key: "admin.address".to_owned(), address, source };
        handed.map_or_else(|| bind_tcp(admin.address).map_err(error), Ok)
    });
    let listeners = Listeners { http, admin: admin.transpose()? };
    Ok((listeners, heir.into_claim()))
}

/// Who looks for its sockets.
struct Heir {
    handed: Vec<Handed>,
    claim: Claim,
}

impl Heir {
    /// The first of those that are left.
    fn take(&mut self, role: Role, address: &ListenAddress) -> Option<OwnedFd> {
        let address = address.to_string();
        let at = self.handed.iter().position(|one| one.role == role && one.address == address)?;
        Some(self.handed.remove(at).socket)
    }

    fn adopt(&mut self, listener: &Listener) -> Option<ListenSocket> {
        let descriptor = self.take(Role::Http, &listener.address)?;
        // What is no such socket is left alone, and another one is bound.
        let socket = self.claim.listen_socket(&listener.address, descriptor).ok()?;
        let second = socket.try_clone().ok()?;
        self.claim.adopted.push((second, listener.clone()));
        Some(socket)
    }

    fn into_claim(self) -> Claim {
        let Self { handed, mut claim } = self;
        for Handed { address, socket, .. } in handed {
            // Only a Unix socket leaves anything behind.
            if let Some(path) = address.strip_prefix("unix:") {
                let address = ListenAddress::Unix(path.into());
                claim.unwanted.extend(claim.listen_socket(&address, socket));
            }
        }
        claim
    }
}

impl Claim {
    fn listen_socket(&self, address: &ListenAddress, socket: OwnedFd) -> io::Result<ListenSocket> {
        Ok(ListenSocket(match address {
            ListenAddress::Ip(_) => Kind::Tcp(tcp(socket)?),
            ListenAddress::Unix(path) => {
                Kind::Unix(UnixSocket::adopt(path, socket.into(), Arc::clone(&self.ours))?)
            }
        }))
    }

    /// From now on the sockets and their files are this weir's alone.
    pub fn make(self) {
        self.ours.store(true, Relaxed);
        for (socket, listener) in &self.adopted {
            if let Err(error) = socket.adapt(listener) {
                tracing::warn!(%error, address = %listener.address, "a listener's socket file keeps its mode");
            }
        }
    }
}

impl OpenSocket {
    /// Its address in the configuration.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Another descriptor of it; `None` if it is of no more use, since its file is gone.
    ///
    /// # Errors
    /// If there is none left.
    pub fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        match &self.socket.0 {
            Kind::Unix(socket) if !socket.has_file() => Ok(None),
            _ => self.socket.descriptor().map(Some),
        }
    }

    /// Another weir's it is from now on: its file stays.
    pub fn disown(&self) {
        if let Kind::Unix(socket) = &self.socket.0 {
            socket.disown();
        }
    }
}

/// A listening TCP socket, if it is one.
fn tcp(socket: OwnedFd) -> io::Result<TcpListener> {
    let socket = TcpListener::from(socket);
    socket.local_addr()?;
    if !socket_acceptconn(&socket)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;

    use super::*;
    use crate::testing::config;

    fn with(addresses: &[ListenAddress]) -> Config {
        let mut config = config();
        let at = |address: &ListenAddress| Listener {
            address: address.clone(),
            ..Listener::at(([127, 0, 0, 1], 0).into())
        };
        config.listeners = addresses.iter().map(at).collect();
        config
    }

    fn handed(role: Role, config: &Config, sockets: &[ListenSocket]) -> Vec<Handed> {
        let each = config.listeners.iter().zip(sockets);
        each.map(|(listener, socket)| Handed {
            role,
            address: listener.address.to_string(),
            socket: socket.descriptor().unwrap(),
        })
        .collect()
    }

    fn opened(config: &Config, listeners: Listeners) -> Vec<OpenSocket> {
        let each = config.listeners.iter().zip(listeners.http);
        each.map(|(listener, socket)| OpenSocket { address: listener.address.clone(), socket }).collect()
    }

    #[test]
    fn addresses_keep_their_sockets_and_others_are_bound() {
        let any = || ListenAddress::Ip(([127, 0, 0, 1], 0).into());
        let two = with(&[any(), any()]);
        let (first, _) = bind_beside(&two, Vec::new()).unwrap();
        let ports = first.addresses().unwrap();
        // Somebody waits to be accepted.
        let _waiting = TcpStream::connect(ports[0].ip().unwrap()).unwrap();
        let sockets = handed(Role::Http, &two, &first.http);
        let admin = handed(Role::Admin, &two, &first.http);
        drop(first);
        let (second, _) = bind_beside(&with(&[any(), any(), any()]), sockets).unwrap();
        let again = second.addresses().unwrap();
        assert_eq!(again[..2], ports[..]);
        assert!(!ports.contains(&again[2]));
        let Kind::Tcp(socket) = &second.http[0].0 else { panic!("it is tcp") };
        socket.accept().unwrap();
        let (third, _) = bind_beside(&two, admin).unwrap();
        assert!(!ports.contains(&third.addresses().unwrap()[0]), "those are the administrators'");
    }

    #[test]
    fn what_is_no_such_socket_is_not_used() {
        let address = ListenAddress::Ip(([127, 0, 0, 1], 0).into());
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let connected = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(connected.local_addr().unwrap()).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        for socket in [OwnedFd::from(unix), connected.into(), file.into()] {
            let handed = Handed { role: Role::Http, address: address.to_string(), socket };
            let (listeners, claim) =
                bind_beside(&with(std::slice::from_ref(&address)), vec![handed]).unwrap();
            assert_eq!((listeners.http.len(), claim.adopted.len()), (1, 0));
        }
    }

    /// Whether somebody listens there.
    fn listens(path: &Path) -> bool {
        UnixStream::connect(path).is_ok()
    }

    #[test]
    fn a_file_is_the_earlier_weir_s_until_it_is_claimed() {
        let directory = tempfile::tempdir().unwrap();
        let [kept, unwanted] = ["kept", "unwanted"].map(|name| directory.path().join(name));
        let both = with(&[ListenAddress::Unix(kept.clone()), ListenAddress::Unix(unwanted.clone())]);
        let one = with(&[ListenAddress::Unix(kept.clone())]);
        let (first, _) = bind_beside(&both, Vec::new()).unwrap();

        // A later weir that fails.
        drop(bind_beside(&one, handed(Role::Http, &both, &first.http)).unwrap());
        assert!(listens(&kept) && listens(&unwanted));

        // One that does not.
        let (second, claim) = bind_beside(&one, handed(Role::Http, &both, &first.http)).unwrap();
        let first = opened(&both, first);
        first.iter().for_each(OpenSocket::disown);
        claim.make();
        assert!(listens(&kept) && !unwanted.exists());
        drop(first);
        assert!(listens(&kept));
        drop(second);
        assert!(!kept.exists());
    }

    #[test]
    fn a_socket_without_its_file_is_not_handed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let config = with(&[ListenAddress::Unix(path.clone())]);
        let (listeners, _) = bind_beside(&config, Vec::new()).unwrap();
        let sockets = opened(&config, listeners);
        assert!(sockets[0].descriptor().unwrap().is_some());
        std::fs::remove_file(path).unwrap();
        assert!(sockets[0].descriptor().unwrap().is_none());
    }
}
