//! Which servers a pool should have: its addresses, and those that its names have. Pure, with the time passed in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use weir_config::model::{External, ServerAddress};

/// A name has no more servers; what it has beyond is left out.
const SERVERS: usize = 256;
/// A name that has no servers yet is looked up again after this.
const SOON: Duration = Duration::from_secs(1);

/// A pool's addresses and names.
#[derive(Debug)]
pub(super) struct Names {
    addresses: BTreeSet<SocketAddr>,
    names: Vec<Name>,
    resolve: Duration,
}

#[derive(Debug)]
struct Name {
    name: String,
    port: u16,
    /// What it had when it was last found.
    servers: BTreeSet<SocketAddr>,
    /// When it is to be looked up; `None`: it is being.
    due: Option<Instant>,
}

/// What is to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Which of the names.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) port: u16,
}

impl Names {
    /// All names are to be looked up at `now`.
    pub(super) fn new(external: &External, now: Instant) -> Self {
        let (mut addresses, mut names) = (BTreeSet::new(), Vec::new());
        for address in &external.addresses {
            match address {
                ServerAddress::Ip(address) => drop(addresses.insert(*address)),
                ServerAddress::Name { name, port } => {
                    let (name, servers) = (name.clone(), BTreeSet::new());
                    names.push(Name { name, port: *port, servers, due: Some(now) });
                }
            }
        }
        Self { addresses, names, resolve: external.resolve }
    }

    /// What is to be looked up by `now`; each is to be answered.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Question> {
        let due =
            self.names.iter_mut().enumerate().filter(|(_, name)| name.due.is_some_and(|due| due <= now));
        due.map(|(index, name)| {
            name.due = None;
            Question { index, name: name.name.clone(), port: name.port }
        })
        .collect()
    }

    /// When something is to be looked up next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.names.iter().filter_map(|name| name.due).min()
    }

    /// The answer to a question. `None`, or no address: there was none, and the name keeps what it had.
    pub(super) fn answered(&mut self, index: usize, found: Option<Vec<SocketAddr>>, now: Instant) {
        let name = &mut self.names[index];
        // Nobody listens on such an address; a connection to it would reach weir's own host.
        let usable = found.into_iter().flatten().filter(|address| !address.ip().is_unspecified());
        let servers: BTreeSet<_> = usable.take(SERVERS).collect();
        if !servers.is_empty() {
            name.servers = servers;
        }
        let pause = if name.servers.is_empty() { self.resolve.min(SOON) } else { self.resolve };
        name.due = Some(now + pause);
    }

    /// All servers that there should be.
    pub(super) fn servers(&self) -> BTreeSet<SocketAddr> {
        self.names.iter().flat_map(|name| &name.servers).chain(&self.addresses).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RESOLVE: Duration = Duration::from_secs(30);

    fn server(n: u8) -> SocketAddr {
        ([10, 0, 0, n], 80).into()
    }

    fn names(now: Instant) -> Names {
        let name = |name: &str| ServerAddress::Name { name: name.to_owned(), port: 80 };
        let addresses = vec![name("a"), ServerAddress::Ip(server(1)), name("b")];
        Names::new(&External { addresses, resolve: RESOLVE }, now)
    }

    #[test]
    fn a_name_is_asked_for_at_once_then_soon_then_now_and_then() {
        let now = Instant::now();
        let mut names = names(now);
        let asked = names.due(now);
        assert_eq!(asked.iter().map(|question| question.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((names.due(now + RESOLVE), names.next()), (Vec::new(), None), "they are being looked up");
        names.answered(0, None, now);
        names.answered(1, Some(vec![server(2)]), now);
        assert_eq!(names.next(), Some(now + SOON));
        assert_eq!(names.due(now + SOON), [asked[0].clone()]);
        names.answered(0, Some(Vec::new()), now + SOON);
        assert_eq!(names.next(), Some(now + 2 * SOON), "no address is no answer");
        assert_eq!(names.servers(), [server(1), server(2)].into());
    }

    #[test]
    fn what_a_name_has_is_bounded_and_nothing_that_means_this_host() {
        let now = Instant::now();
        let mut names = names(now);
        names.due(now);
        let many = (0..2000).map(|n| SocketAddr::from(([10, 1, (n / 200) as u8, (n % 200) as u8], 80)));
        names.answered(0, Some([([0, 0, 0, 0], 80).into()].into_iter().chain(many).collect()), now);
        assert_eq!(names.servers().len(), SERVERS + 1);
        assert!(names.servers().iter().all(|address| !address.ip().is_unspecified()));
    }

    proptest! {
        // The model: per name the last answer that had an address.
        #[test]
        fn servers_are_those_of_the_last_good_answers(
            answers in proptest::collection::vec((0..2usize, proptest::option::of(proptest::collection::vec(1..9u8, 0..4))), 0..40),
        ) {
            let now = Instant::now();
            let mut names = names(now);
            let mut last = [Vec::new(), Vec::new()];
            for (step, (index, answer)) in (0..).zip(answers) {
                let at = now + RESOLVE * step;
                names.due(at);
                names.answered(index, answer.clone().map(|all| all.into_iter().map(server).collect()), at);
                names.answered(1 - index, None, at);
                if let Some(all) = answer.filter(|all| !all.is_empty()) {
                    last[index] = all;
                }
                let expected: BTreeSet<_> = last.iter().flatten().copied().chain([1]).map(server).collect();
                prop_assert_eq!(names.servers(), expected);
            }
        }
    }
}
