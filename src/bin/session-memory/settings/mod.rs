//! Settings: `table` lists each of them once.
//!
//! | file | |
//! |---|---|
//! | `table` | every setting: its group, name, type, default and help |
//! | `value`, `place` | the types of settings, each read from text and shown as the same text |
//! | `pick` | one value: from a flag, the environment, the file, or the default |
//! | `load` | all values of a run |
//! | `show` | the table as `check` and the README show it |
//! | `secrets` | cookie secrets, the principal's secret, encryption keys |
//! | `config` | settings and secrets that fit together |

mod config;
mod load;
mod pick;
mod place;
mod row;
mod secrets;
mod show;
mod table;
mod value;

pub(crate) use config::Config;
pub(crate) use load::{arguments, read_file, resolve, unknown_variables};
pub(crate) use place::StoreUrl;
pub(crate) use secrets::Secrets;
#[cfg(feature = "import")]
pub(crate) use secrets::text;
pub(crate) use show::{list, markdown};
pub(crate) use table::{ConfigFile, Settings};
pub(crate) use value::{LogFormat, PrincipalFrom, Value};
