//! A thread that stays in the host's network namespace when weir enters its own.
//!
//! ```text
//!  main thread ── HostThread::start() ── enter_private_beside(..) ──> private namespace, and all later threads
//!                      │
//!                      └── host's namespace, for good: does what it is given
//! ```
//!
//! A socket belongs for ever to the namespace of the thread that made it, whoever uses it then; and a thread, to that of
//! the thread that started it. So what is to reach the host's network is begun here, and nothing else is: a thread that
//! has left cannot come back where weir is not root on the host (setns(2) asks for `CAP_SYS_ADMIN` over the host's
//! namespace).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

/// What a [`HostThread`] is to do: quickly, since others wait for their turn.
type Job = Box<dyn FnOnce() + Send>;

/// See the module's documentation. The thread ends when this is dropped and it has done what it was given before.
#[derive(Debug)]
pub struct HostThread {
    jobs: Sender<Job>,
}

impl HostThread {
    /// Starts a thread in the namespace of the calling one.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, given) = mpsc::channel();
        thread::Builder::new().name("host-network".to_owned()).spawn(move || work(&given))?;
        Ok(Self { jobs })
    }

    /// Has the thread do `job`. One that panics ends, and the thread goes on with the next.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The thread ends after its jobs' sender, which is here.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn work(given: &Receiver<Job>) {
    for job in given {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job in the host's network namespace panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_done_one_after_another_on_one_thread_whatever_they_do() {
        let host = HostThread::start().unwrap();
        let (done, told) = mpsc::channel();
        for number in 0..3 {
            let done = done.clone();
            host.run(move || {
                done.send((number, thread::current().id())).unwrap();
                assert_ne!(number, 1, "asked to panic");
            });
        }
        drop((done, host));
        let told: Vec<_> = told.into_iter().collect();
        assert_eq!(told.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(told.iter().all(|(_, thread)| *thread == told[0].1 && *thread != thread::current().id()));
    }
}
