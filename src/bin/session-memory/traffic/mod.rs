//! Parts that both sides of the proxy share: the clients' side (`server`) and the upstream's (`upstream`).

mod hop_by_hop;
mod idle_limit;
mod in_flight;
mod lazy_timeout;
mod refusal;
mod tcp;
mod upgrade;
mod work;

pub(crate) use hop_by_hop::{named_in_connection, strip_hop_by_hop, tokens_of};
pub(crate) use idle_limit::{IdleLimited, Stalled, discard};
pub(crate) use in_flight::{InFlight, RequestSlot, SlotHeld};
pub(crate) use lazy_timeout::LazyTimeout;
pub(crate) use refusal::{Refusal, json};
pub(crate) use tcp::{KEEP_ALIVE, USER_TIMEOUT};
pub(crate) use upgrade::Upgrade;
pub(crate) use work::Work;
