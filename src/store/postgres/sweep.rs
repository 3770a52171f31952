//! The removal of what expired.

use std::{error::Error, sync::Arc, time::Duration};

use super::{log::Statements, pool::Connections};

pub(super) struct Sweeper {
    pub(super) connections: Connections,
    pub(super) statements: Arc<Statements>,
    pub(super) interval: Duration,
}

/// Between two rounds of a sweep, so that appends come first.
const MORE_TO_SWEEP: Duration = Duration::from_millis(20);

impl Sweeper {
    /// Sweeps until it is dropped.
    pub(super) async fn run(self) {
        loop {
            let wait = match self.statements.sweep(&self.connections).await {
                Ok(true) => MORE_TO_SWEEP,
                Ok(false) => self.interval,
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "expired sessions could not be removed yet");
                    self.interval
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}
