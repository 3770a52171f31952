//! The scripts, and how one is sent.

use std::sync::LazyLock;

use redis::{Arg, Cmd, ToRedisArgs};

/// A script and the digest under which a server keeps it.
pub(super) struct Script {
    code: &'static str,
    digest: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) static $name: Script = Script {
            code: concat!($(include_str!($file)),+),
            digest: LazyLock::new(|| redis::Script::new($name.code).get_hash().to_owned()),
        };
    };
}

script!(APPEND, "lua/shared.lua", "lua/list_one.lua", "lua/append.lua");
script!(NEXT, "lua/list_one.lua", "lua/next.lua");
script!(LOAD, "lua/shared.lua", "lua/load.lua");
script!(READ, "lua/shared.lua", "lua/read.lua");
script!(LOOK, "lua/shared.lua", "lua/look.lua");
script!(DELETE, "lua/shared.lua", "lua/unlist_one.lua", "lua/delete.lua");
script!(SCAN, "lua/scan.lua");
script!(ERASE, "lua/shared.lua", "lua/unlist_one.lua", "lua/erase.lua");
script!(LIST, "lua/list_one.lua", "lua/list.lua");
script!(ENLIST, "lua/list_one.lua", "lua/enlist.lua");
script!(UNLIST, "lua/unlist.lua");

/// One call of a script, as it is sent.
pub(super) struct Invocation {
    script: &'static Script,
    by_digest: Cmd,
}

/// Room for keys and arguments, a record aside.
const USUAL: usize = 2048;

impl Invocation {
    pub(super) fn new(script: &'static Script, keys: &[String]) -> Self {
        let mut by_digest = Cmd::with_capacity(20, USUAL);
        by_digest.arg("EVALSHA").arg(&*script.digest).arg(keys.len()).arg(keys);
        Self { script, by_digest }
    }

    pub(super) fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.by_digest.arg(arg);
        self
    }

    /// By its digest: what a server answers that has seen the script.
    pub(super) fn by_digest(&self) -> &Cmd {
        &self.by_digest
    }

    /// With its text, which the server then keeps.
    pub(super) fn in_full(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(self.script.code);
        for arg in self.by_digest.args_iter().skip(2) {
            if let Arg::Simple(arg) = arg {
                cmd.arg(arg);
            }
        }
        cmd
    }
}
