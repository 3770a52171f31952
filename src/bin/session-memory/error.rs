//! Errors of the program: one type for what ends a command, and one way to print it.

use std::error::Error;

/// Any error that ends a command.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// An error and its causes, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
