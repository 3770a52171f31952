use std::{error::Error, fmt, io, path::PathBuf, sync::Arc};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::url::{InvalidRedisUrl, RedisUrl};
use crate::{
    history::RecordError,
    store::{StoreError, StoreErrorKind},
};

/// Why a Redis store could not be opened. Its text names the servers and never a password.
#[derive(Debug)]
pub struct OpenError {
    url: Option<RedisUrl>,
    problem: OpenProblem,
}

/// What stands in the way of opening a Redis store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenProblem {
    /// The URL cannot be read.
    #[error(transparent)]
    Url(InvalidRedisUrl),
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(&'static str),
    /// A file of the TLS settings cannot be read.
    #[error("the file {0} cannot be read: {1}")]
    File(PathBuf, #[source] io::Error),
    /// No server took the connection, or the user and password, in time.
    #[error("no connection: {0}")]
    Connect(#[source] StoreError),
}

impl OpenError {
    pub(super) fn new(url: Option<RedisUrl>, problem: OpenProblem) -> Self {
        Self { url, problem }
    }

    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &OpenProblem {
        &self.problem
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.url {
            Some(url) => write!(f, "cannot open the session store {url}: {}", self.problem)?,
            None => write!(f, "cannot open the session store: {}", self.problem)?,
        }
        // What the server said is the cause of the cause; a start that fails is read by a person.
        if let OpenProblem::Connect(error) = &self.problem
            && let Some(cause) = error.source()
        {
            write!(f, " ({cause})")?;
        }
        Ok(())
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// What an attempt's error means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection is gone; whether the command was done is unknown.
    Lost,
    /// The server is the wrong one now: find the right one. Nothing was done.
    WrongServer,
    /// Not now. Nothing was done.
    Later,
    /// The log that it found is of another session.
    Foreign,
    /// Not at all.
    Never(StoreErrorKind),
}

pub(super) fn verdict(error: &RedisError) -> Verdict {
    if error.is_timeout() || error.is_io_error() || error.is_connection_dropped() {
        return Verdict::Lost;
    }
    match error.kind() {
        ErrorKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask,
        )
        | ErrorKind::ClusterConnectionNotFound
        | ErrorKind::MasterNameNotFoundBySentinel => return Verdict::Later,
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => {
            return Verdict::WrongServer;
        }
        // What follows an answer that cannot be read cannot be read either.
        ErrorKind::Parse => return Verdict::Lost,
        ErrorKind::UnexpectedReturnType => return Verdict::Never(StoreErrorKind::Corrupt),
        _ => {}
    }
    match error.code() {
        Some("NOREPLICAS" | "MISCONF" | "BUSY" | "OOM" | "LOADING") => Verdict::Later,
        // A script's own error says in its text what stopped it.
        _ if says(error, "-READONLY") || says(error, "READONLY ") => Verdict::WrongServer,
        _ if says(error, "OOM command not allowed")
            || says(error, "MISCONF ")
            || says(error, "NOREPLICAS ")
            || says(error, "max number of clients") =>
        {
            Verdict::Later
        }
        Some("SMVERSION") => Verdict::Never(StoreErrorKind::Conflict),
        _ if says(error, "SMVERSION") => Verdict::Never(StoreErrorKind::Conflict),
        Some("SMFOREIGN") => Verdict::Foreign,
        _ if says(error, "SMFOREIGN") => Verdict::Foreign,
        Some("WRONGTYPE" | "SMCORRUPT") => Verdict::Never(StoreErrorKind::Corrupt),
        _ if says(error, "SMCORRUPT") || says(error, "WRONGTYPE") => Verdict::Never(StoreErrorKind::Corrupt),
        _ if says(error, "maximum allowed size") || says(error, "invalid bulk length") => {
            Verdict::Never(StoreErrorKind::TooLarge)
        }
        _ => Verdict::Never(StoreErrorKind::Other),
    }
}

fn says(error: &RedisError, text: &str) -> bool {
    error.detail().is_some_and(|detail| detail.contains(text))
}

/// Whether the server does not have the script.
pub(super) fn is_noscript(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the keys of one command are in different slots: only the node of a Cluster minds.
pub(super) fn is_in_cluster(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
}

/// The error for callers. Nothing of a key or record is in what a server says of these commands, but where it does
/// not know one: then it quotes how the arguments begin, passwords among them.
pub(super) fn store_error(kind: StoreErrorKind, error: Option<Arc<RedisError>>) -> StoreError {
    match error {
        Some(error) if says(&error, "unknown command") => {
            let detail = error.detail().unwrap_or_default();
            let command = detail.split(", with args").next().unwrap_or_default().to_owned();
            let unquoted = RedisError::from((error.kind(), "the server knows no such command", command));
            StoreError::with_source(kind, unquoted)
        }
        Some(error) => StoreError::with_source(kind, error),
        None => StoreError::new(kind),
    }
}

pub(super) fn damaged(error: RecordError) -> StoreError {
    error.into()
}

pub(super) fn unexpected() -> StoreError {
    StoreError::new(StoreErrorKind::Corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_a_server_does_not_know_is_named_without_its_arguments() {
        let said = "unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'me' 's3cret' ";
        let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
        let error = RedisError::from((kind, "An error was signalled by the server", said.to_owned()));
        let error = store_error(StoreErrorKind::Other, Some(Arc::new(error)));
        let shown = format!("{error} {error:?} {:?}", error.source());
        assert!(shown.contains("HELLO") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn an_answer_that_cannot_be_read_ends_its_connection() {
        assert_eq!(verdict(&(ErrorKind::Parse, "no RESP").into()), Verdict::Lost);
    }
}
