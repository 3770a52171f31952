/// How a request's items continue its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientCase {
    /// The beginning of a conversation.
    New,
    /// Only what is new.
    Delta,
    /// The whole history and what is new.
    Resend,
    /// The newest part of the history and what is new.
    Window,
    /// A beginning of the history, and then something else, or nothing.
    Edit,
    /// Another conversation.
    Unrelated,
    /// The newest turn's messages once more.
    Retry,
}

impl ClientCase {
    const ALL: [Self; 7] =
        [Self::New, Self::Delta, Self::Resend, Self::Window, Self::Edit, Self::Unrelated, Self::Retry];

    /// The case that a token names; a later version may have others.
    pub(super) fn of(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|case| case.as_str() == token)
    }

    /// The token after `client=` in the response header, in records, and the metric label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Delta => "delta",
            Self::Resend => "resend",
            Self::Window => "window",
            Self::Edit => "edit",
            Self::Unrelated => "unrelated",
            Self::Retry => "retry",
        }
    }
}
