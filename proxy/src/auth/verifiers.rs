//! Threads that verify passwords.
//!
//! ```text
//!  request --client has few there--> admitted --a thread is free--> verifying --> answer
//!              |                        `- as many as there may be: 503
//!              `- 429
//! ```
//!
//! A password takes tens of milliseconds to verify, which no thread that serves requests may spend. So it is done elsewhere, on
//! half of the processors at most; a bounded number waits, and no client has many places among them.

use std::sync::Arc;

use tokio::sync::Semaphore;
use weir_pool::Client;

use crate::answer::Refusal;
use crate::filter::PerClient;

/// One client's verifications at once, those that wait included.
const PER_CLIENT: u32 = 4;

/// Verifications that wait or are under way, of all clients.
const ADMITTED: usize = 128;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Verifiers {
    per_client: PerClient,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Verifiers {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            per_client: PerClient::new(PER_CLIENT),
            admitted: Arc::new(Semaphore::new(ADMITTED)),
            running: Arc::new(Semaphore::new(processors.div_ceil(2))),
        }
    }
}

impl Verifiers {
    /// What `verify` says, when its turn has come. It counts as under way until it has ended, whoever still waits for it.
    pub(super) async fn run(
        &self,
        client: Client,
        verify: impl FnOnce() -> bool + Send + 'static,
    ) -> Result<bool, Refusal> {
        let place = self.per_client.enter(client).ok_or(Refusal::TooManyInFlight)?;
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Refusal::AuthBusy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Refusal::AuthBusy)?;
        let verified = tokio::task::spawn_blocking(move || {
            let verified = verify();
            drop((running, admitted, place));
            verified
        });
        verified.await.map_err(|_| Refusal::Internal)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::mpsc;

    use super::*;

    fn client(number: u8) -> Client {
        IpAddr::from([192, 0, 2, number]).into()
    }

    #[tokio::test]
    async fn a_client_has_few_places_and_all_have_not_many() {
        let verifiers = Arc::new(Verifiers::default());
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let mut held = tokio::task::JoinSet::new();
        for number in 0..ADMITTED / PER_CLIENT as usize {
            for _ in 0..PER_CLIENT {
                let (verifiers, wait) = (Arc::clone(&verifiers), Arc::clone(&wait));
                let client = client(number.try_into().unwrap());
                held.spawn(async move {
                    verifiers.run(client, move || wait.lock().unwrap().recv().is_ok()).await
                });
            }
        }
        while verifiers.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(verifiers.run(client(0), || true).await, Err(Refusal::TooManyInFlight));
        assert_eq!(verifiers.run(client(200), || true).await, Err(Refusal::AuthBusy));
        for _ in 0..ADMITTED {
            release.send(()).unwrap();
        }
        while let Some(verified) = held.join_next().await {
            assert_eq!(verified.unwrap(), Ok(true));
        }
        assert_eq!(verifiers.run(client(0), || false).await, Ok(false));
    }

    #[tokio::test]
    async fn a_panic_gives_the_place_back() {
        let verifiers = Verifiers::default();
        for _ in 0..2 * PER_CLIENT {
            assert_eq!(verifiers.run(client(0), || panic!("a bug")).await, Err(Refusal::Internal));
        }
        assert_eq!(verifiers.run(client(0), || true).await, Ok(true));
    }
}
