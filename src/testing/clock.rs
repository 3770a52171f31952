use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A clock that stands still until it is moved: for the `with_clock` of a store. Clones are the same clock.
///
/// ```
/// use std::time::Duration;
/// use tower_session_memory::{store::InMemoryStore, testing::ManualClock};
///
/// let clock = ManualClock::default();
/// let now = clock.clone();
/// let store = InMemoryStore::new().with_clock(move || now.now());
/// clock.advance(Duration::from_secs(60));
/// # drop(store);
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<SystemTime>>);

impl ManualClock {
    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves it forward.
    pub fn advance(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += time;
    }
}

impl Default for ManualClock {
    /// A clock that shows what the system's clock shows now.
    fn default() -> Self {
        Self(Arc::new(Mutex::new(SystemTime::now())))
    }
}
