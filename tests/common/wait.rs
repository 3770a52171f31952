//! The time limit of every wait.

use std::time::Duration;

/// How long anything may take before the test fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The future's output, or a failure that says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("waited {LIMIT:?} for {what}"))
}
