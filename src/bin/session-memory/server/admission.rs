//! Admission: at most `max_requests` requests at once; a request beyond the limit is refused at once with 503.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Counter;
use tokio::sync::Semaphore;

use crate::traffic::{Refusal, RequestSlot};

/// Refused requests are logged at most once in 10 seconds.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The slots of requests.
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    most: NonZeroUsize,
    refused: Counter,
    /// Refusals since the last log line.
    unlogged: AtomicU64,
    logged: Mutex<Option<Instant>>,
}

impl Admission {
    /// `most` slots. Refusals are counted by the recorder that is installed now.
    pub(crate) fn new(most: NonZeroUsize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS))),
            most,
            refused: metrics::counter!("session_memory_http_overloaded_total"),
            unlogged: AtomicU64::new(0),
            logged: Mutex::new(None),
        }
    }

    /// A slot, if one is free. A request never waits for one: a queue would make every request late.
    pub(crate) fn admit(&self) -> Result<RequestSlot, Refusal> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(slot) => Ok(Arc::new(slot)),
            Err(_) => {
                self.refused.increment(1);
                self.log();
                Err(Refusal::overloaded(format!(
                    "{} requests are being answered, the limit set by max_requests. Try again",
                    self.most
                )))
            }
        }
    }

    fn log(&self) {
        self.unlogged.fetch_add(1, Ordering::Relaxed);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            return;
        }
        *logged = Some(Instant::now());
        let refused = self.unlogged.swap(0, Ordering::Relaxed);
        tracing::warn!(refused, max_requests = self.most, "overloaded: requests are refused");
    }
}
