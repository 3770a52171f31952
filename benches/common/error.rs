//! The error of a benchmark's parts.

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
