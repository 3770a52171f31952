//! Bodies: the request's, collected and rebuilt; the response's, listened to on its way out.

mod buffer_budget;
mod collect;
mod detached;
pub(crate) mod encoding;
pub(crate) mod recording;
mod request;
mod response;
mod tee;

pub(crate) use buffer_budget::BufferBudget;
pub(crate) use collect::{CollectError, Collected, collect};
pub(crate) use detached::detached;
pub use request::RequestBody;
pub use response::ResponseBody;
pub(crate) use tee::{Reactions, Tee};

/// The error of a response body: the inner body's, or [`ReplyWithheld`].
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The error in which a response body ends whose turn could not be stored, with
/// [`OnAppendError::Cut`](crate::OnAppendError::Cut). A caller finds it by `downcast_ref`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the turn could not be stored, so the reply's end is withheld")]
pub struct ReplyWithheld;
