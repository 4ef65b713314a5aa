//! How many requests of one client a route has under way, and how many connections a listener.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use weir_pool::Client;

/// Clients that have something under way, requests, connections or else, and how much. Who has none has no entry, so that
/// this grows no larger than the number of those.
#[derive(Clone, Debug)]
pub(crate) struct PerClient {
    counts: Arc<Mutex<HashMap<Client, u32>>>,
    limit: u32,
}

/// One request's, or connection's, place. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    counts: Arc<Mutex<HashMap<Client, u32>>>,
    client: Client,
}

impl PerClient {
    pub(crate) fn new(limit: u32) -> Self {
        Self { counts: Arc::default(), limit }
    }

    /// A place, if the client has one left.
    pub(crate) fn enter(&self, client: Client) -> Option<Place> {
        let mut counts = self.counts.lock();
        let count = counts.entry(client).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Place { counts: Arc::clone(&self.counts), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.counts.lock().entry(self.client) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn client(last: u8) -> Client {
        IpAddr::from([192, 0, 2, last]).into()
    }

    proptest! {
        #[test]
        fn each_client_has_its_places_and_nothing_is_left_behind(
            steps in proptest::collection::vec((0_u8..3, any::<bool>()), 0..40),
        ) {
            let places = PerClient::new(2);
            let mut held: HashMap<u8, Vec<Place>> = HashMap::new();
            for (number, enters) in steps {
                let own = held.entry(number).or_default();
                if enters {
                    let room = own.len() < 2;
                    let place = places.enter(client(number));
                    prop_assert_eq!(place.is_some(), room);
                    own.extend(place);
                } else {
                    own.pop();
                }
            }
            let busy = held.values().filter(|own| !own.is_empty()).count();
            prop_assert_eq!(places.counts.lock().len(), busy);
            held.clear();
            prop_assert!(places.counts.lock().is_empty());
        }
    }
}
