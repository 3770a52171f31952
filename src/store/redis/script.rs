//! The scripts, and how one is sent.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::Cmd;

/// A script and the digest under which a server keeps it.
pub(super) struct Script {
    code: &'static str,
    digest: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(super) static $name: Script = Script {
            code: concat!(include_str!("lua/shared.lua"), include_str!($file)),
            digest: LazyLock::new(|| redis::Script::new($name.code).get_hash().to_owned()),
        };
    };
}

script!(APPEND, "lua/append.lua");
script!(LOAD, "lua/load.lua");
script!(DELETE, "lua/delete.lua");
script!(LIST, "lua/list.lua");
script!(UNLIST, "lua/unlist.lua");

/// One call of a script.
pub(super) struct Invocation {
    pub(super) script: &'static Script,
    pub(super) keys: Vec<String>,
    pub(super) args: Vec<Bytes>,
}

impl Invocation {
    pub(super) fn new(script: &'static Script, keys: Vec<String>) -> Self {
        Self { script, keys, args: Vec::new() }
    }

    pub(super) fn arg(mut self, arg: impl Into<Bytes>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// By its digest: what a server answers that has seen the script.
    pub(super) fn by_digest(&self) -> Cmd {
        self.cmd("EVALSHA", &self.script.digest)
    }

    /// With its text, which the server then keeps.
    pub(super) fn in_full(&self) -> Cmd {
        self.cmd("EVAL", self.script.code)
    }

    fn cmd(&self, name: &str, script: &str) -> Cmd {
        let mut cmd = redis::cmd(name);
        cmd.arg(script).arg(self.keys.len()).arg(&self.keys);
        for arg in &self.args {
            cmd.arg(&arg[..]);
        }
        cmd
    }
}
