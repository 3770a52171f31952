//! How many requests are taken in at once; what is past that is told to come again, at once.

use std::{
    num::NonZeroUsize,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use metrics::Counter;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::reply::Refusal;

/// The log tells of refused requests so often, however many there are.
const TELL: Duration = Duration::from_secs(10);

/// Room for so many requests.
pub(crate) struct Admission {
    free: Arc<Semaphore>,
    most: NonZeroUsize,
    refused: Counter,
    untold: AtomicU64,
    told: Mutex<Option<Instant>>,
}

/// A request's place among those that are taken in: from its head to the end of its reply, also when its client has
/// left and the upstream is still asked. It is given back with the last clone.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

impl Admission {
    /// Room for so many, with what is refused counted by the recorder that is installed now.
    pub(crate) fn new(most: NonZeroUsize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(most.get().min(Semaphore::MAX_PERMITS))),
            most,
            refused: metrics::counter!("session_memory_http_overloaded_total"),
            untold: AtomicU64::new(0),
            told: Mutex::new(None),
        }
    }

    /// Takes a request in, if there is room. Nobody waits for it: a queue would only make all of them late.
    pub(crate) fn admit(&self) -> Result<Place, Refusal> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(place) => Ok(Arc::new(place)),
            Err(_) => {
                self.refused.increment(1);
                self.tell();
                Err(Refusal::overloaded(format!(
                    "{} requests are being answered, the limit set by max_requests. Try again",
                    self.most
                )))
            }
        }
    }

    fn tell(&self) {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TELL) {
            return;
        }
        *told = Some(Instant::now());
        let refused = self.untold.swap(0, Ordering::Relaxed);
        tracing::warn!(refused, max_requests = self.most, "overloaded: requests are refused");
    }
}

pin_project! {
    /// A reply that holds its request's place until it ends, or is dropped.
    pub(crate) struct Admitted<B> {
        #[pin]
        inner: B,
        place: Place,
    }
}

impl<B> Admitted<B> {
    pub(crate) fn new(inner: B, place: Place) -> Self {
        Self { inner, place }
    }
}

impl<B: Body<Data = Bytes>> Body for Admitted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
