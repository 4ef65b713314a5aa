//! The same question, asked several times at once, is answered once.
//!
//! Browsers send many requests at once, all with the same credentials; one verification serves them all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::seen::Digest;
use crate::answer::Refusal;

type Answer = Arc<OnceCell<bool>>;

/// Verifications under way, by what is verified.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<Digest, Answer>>);

/// Somebody's interest in one. The last to lose it takes it out.
struct Interest<'f> {
    flights: &'f Flights,
    credentials: Digest,
    answer: Answer,
}

impl Flights {
    /// What `verify` says of the credentials, or the one who asked before and still waits. A refusal is each one's own.
    pub(super) async fn join<F: Future<Output = Result<bool, Refusal>>>(
        &self,
        credentials: Digest,
        verify: impl FnOnce() -> F,
    ) -> Result<bool, Refusal> {
        let answer = Arc::clone(self.0.lock().entry(credentials).or_default());
        let interest = Interest { flights: self, credentials, answer };
        interest.answer.get_or_try_init(verify).await.copied()
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock();
        // The map's and this one; more are made under the lock only.
        if Arc::strong_count(&self.answer) == 2 {
            flights.remove(&self.credentials);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::auth::seen::Seen;

    #[tokio::test]
    async fn one_verification_serves_all_who_ask_meanwhile() {
        let (flights, seen) = (Flights::default(), Seen::<()>::new());
        let (count, gate) = (AtomicUsize::new(0), Semaphore::new(0));
        let (counted, gate_of) = (&count, &gate);
        let ask = |what: &'static [u8]| {
            flights.join(seen.digest(&[what]), move || async move {
                counted.fetch_add(1, SeqCst);
                gate_of.acquire().await.unwrap().forget();
                Ok(what == b"right")
            })
        };
        let open = async {
            while flights.0.lock().len() < 2 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(2);
        };
        let (right, again, wrong, ()) = tokio::join!(ask(b"right"), ask(b"right"), ask(b"wrong"), open);
        assert_eq!((right, again, wrong), (Ok(true), Ok(true), Ok(false)));
        assert_eq!(count.load(SeqCst), 2);
        assert!(flights.0.lock().is_empty());
    }

    #[tokio::test]
    async fn who_goes_away_or_is_refused_leaves_nothing() {
        let (flights, digest) = (Flights::default(), Seen::<()>::new().digest(&[]));
        {
            let never = flights.join(digest, std::future::pending);
            let mut never = std::pin::pin!(never);
            assert!(futures::poll!(never.as_mut()).is_pending());
            assert_eq!(flights.0.lock().len(), 1);
        }
        assert!(flights.0.lock().is_empty());
        assert_eq!(flights.join(digest, async || Err(Refusal::AuthBusy)).await, Err(Refusal::AuthBusy));
        assert!(flights.0.lock().is_empty());
    }
}
