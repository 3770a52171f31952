//! stub
use crate::BoxError;
use std::process::ExitCode;
pub(crate) fn run() -> Result<ExitCode, BoxError> {
    Err("later".into())
}
