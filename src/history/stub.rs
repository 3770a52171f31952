use super::*;
use crate::protocol::Canonical;
use bytes::Bytes;
/// x
#[derive(Debug, Clone, Copy, Default)]
pub enum Instructions {
    /// x
    #[default]
    Remember,
    /// x
    Client,
}
/// x
#[derive(Debug, Clone, Copy, Default)]
pub struct Window;
/// x
pub struct Request<'a> {
    pub(crate) messages: &'a [Message],
    pub(crate) leading: usize,
    pub(crate) approach: Approach,
    pub(crate) is_retry: bool,
    pub(crate) instructions: Instructions,
    pub(crate) window: Window,
}
/// x
pub enum Approach {
    /// x
    Append,
    /// x
    Reset,
    /// x
    Reconcile,
}
/// x
pub struct Log;
impl Log {
    pub(crate) fn new(_: Vec<Turn>) -> Self {
        Log
    }
}
/// x
pub struct Plan;
#[derive(Clone, Copy)]
pub(crate) struct Case;
impl Case {
    pub(crate) fn as_str(self) -> &'static str {
        ""
    }
}
impl Plan {
    pub(crate) fn inserted_bytes(&self) -> usize {
        0
    }
    pub(crate) fn insertion(&self) -> Vec<Bytes> {
        vec![]
    }
    pub(crate) fn case(&self) -> Case {
        Case
    }
    pub(crate) fn turns(&self) -> usize {
        0
    }
    pub(crate) fn messages(&self) -> usize {
        0
    }
    pub(crate) fn inserted_messages(&self) -> usize {
        0
    }
    pub(crate) fn parent(&self) -> Parent {
        Parent::Root
    }
    pub(crate) fn brings_instructions(&self) -> bool {
        false
    }
    pub(crate) fn new_from(&self) -> usize {
        0
    }
}
pub(crate) fn reconcile(_: &Request<'_>, _: &Log, _: impl Fn(&Message) -> Canonical) -> Plan {
    Plan
}
