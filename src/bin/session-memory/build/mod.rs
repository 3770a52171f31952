//! Makes out of settings what runs: the log, the store, the layer, the server.

mod layer;
mod log;
mod per_worker;
mod server;
mod store;

pub(crate) use layer::memory;
#[cfg(feature = "import")]
pub(crate) use layer::principal;
pub(crate) use log::install_log;
pub(crate) use server::{apps, server};
pub(crate) use store::{migrate, open};
