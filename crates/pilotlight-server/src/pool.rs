//! Threads for what may block: the store's file operations.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use pilotlight_cache::Blocking;

/// A fixed number of threads that run jobs in the order they came.
///
/// Not tokio's own blocking pool: the front-ends run several current-thread runtimes, and a pool each would multiply
/// both the threads and the operations in flight on one disk.
///
/// The queue has no bound of its own: [`Blocking::run`] may neither refuse a job nor stall the event loop it is called
/// from. Every job belongs to a request, so connections times pipelined requests bound it.
#[derive(Debug)]
pub struct ThreadPool {
    queue: Arc<Queue>,
    threads: usize,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    is_closing: bool,
}

type Job = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} jobs)", self.state.lock().jobs.len())
    }
}

impl ThreadPool {
    /// Two threads a core, at least four: jobs wait for a disk more than they compute.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn for_this_machine() -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::new((2 * cores).max(4))
    }

    /// A pool of `threads` threads, at least one.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let pool = Self { queue: Arc::default(), threads };
        for number in 0..threads {
            let queue = Arc::clone(&pool.queue);
            std::thread::Builder::new()
                .name(format!("pilotlight-io-{number}"))
                .spawn(move || queue.work())?;
        }
        Ok(pool)
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }
}

impl Blocking for ThreadPool {
    fn run(&self, job: Job) {
        self.queue.state.lock().jobs.push_back(job);
        self.queue.ready.notify_one();
    }
}

impl Drop for ThreadPool {
    /// Queued jobs still run. Nobody waits for them here: the last owner may be a job, on one of these threads.
    fn drop(&mut self) {
        self.queue.state.lock().is_closing = true;
        self.queue.ready.notify_all();
    }
}

impl Queue {
    fn work(&self) {
        while let Some(job) = self.next() {
            // A job that panics drops its answer, which its request sees as an error. The thread goes on.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job of the store panicked; its request was answered with an error");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.is_closing {
                return None;
            }
            self.ready.wait(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn every_job_runs_once_on_a_named_thread() {
        let pool = ThreadPool::new(3).unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            pool.run(Box::new(move || {
                let name = std::thread::current().name().unwrap_or_default().to_owned();
                sender.send((number, name)).unwrap();
            }));
        }
        drop(sender);
        let mut ran: Vec<_> = receiver.iter().collect();
        ran.sort();
        assert!(ran.iter().map(|(number, _)| *number).eq(0..100));
        assert!(ran.iter().all(|(_, name)| name.starts_with("pilotlight-io-")));
    }

    #[test]
    fn a_panicking_job_does_not_take_its_thread_along() {
        let pool = ThreadPool::new(1).unwrap();
        let (sender, receiver) = mpsc::channel();
        pool.run(Box::new(|| panic!("expected by this test")));
        pool.run(Box::new(move || sender.send(()).unwrap()));
        receiver.recv().unwrap();
    }

    #[test]
    fn queued_jobs_outlive_the_pool() {
        let pool = ThreadPool::new(1).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (sender, receiver) = mpsc::channel();
        pool.run(Box::new(move || wait.recv().unwrap()));
        pool.run(Box::new(move || sender.send(()).unwrap()));
        drop(pool);
        go.send(()).unwrap();
        receiver.recv().unwrap();
    }
}
