//! `demo`: a conversation that survives a kill, without a network or another program.
//!
//! The command starts a scripted model, the proxy in a process of its own, and a SQLite file that is deleted at the end. The
//! proxy is killed (SIGKILL) before the last turn and started again.

mod client;
mod model;
mod print;
mod proxy;

use std::{path::PathBuf, process::ExitCode};

use clap::{ArgMatches, Command};

use crate::error::BoxError;
use client::DemoClient;
use model::{Model, SeenMessage};
use print::Printer;
use proxy::Proxy;

const TURNS: [&str; 3] = [
    "My name is Ada, and I am building a tower.",
    "It will have seven floors.",
    "What is my name, and how many floors will my tower have?",
];

pub(super) fn command() -> Command {
    Command::new("demo")
        .about("Hold a conversation that survives a kill, with a scripted model and no network")
}

/// Holds the conversation.
///
/// # Errors
///
/// When something cannot be started, or a turn fails. A model that did not see the history is exit code 1.
pub(super) fn run(_flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(hold(&Printer::for_stdout()))
}

async fn hold(printer: &Printer) -> Result<ExitCode, BoxError> {
    let directory = Directory::create()?;
    let database = directory.0.join("demo.db");
    let model = Model::start().await?;
    let mut proxy = Proxy::start(&model.url, &database)?;
    printer.start(&model.url, &proxy.url, &database);

    let session = tower_session_memory::session::SessionId::random()?;
    let mut seen = Vec::new();
    for (number, text) in (1..).zip(TURNS) {
        if number == TURNS.len() {
            printer.kill(proxy.id());
            proxy.kill()?;
            proxy = Proxy::start(&model.url, &database)?;
            printer.restart(proxy.id(), &proxy.url);
        }
        let came_back = DemoClient::new(&proxy.url, session.as_str()).say(text, number == 2).await?;
        seen = model.seen();
        printer.turn(number, text, &seen, &came_back);
    }
    proxy.stop()?;
    let whole = is_whole(&seen);
    printer.end(whole, seen.len());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the model saw every message of the conversation, in order.
fn is_whole(seen: &[SeenMessage]) -> bool {
    let users: Vec<&str> = seen.iter().step_by(2).map(|message| message.text.as_str()).collect();
    model::roles(seen) == ["user", "assistant", "user", "assistant", "user"] && users == TURNS
}

/// A directory that is deleted with all in it.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Result<Self, BoxError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let name = format!("session-memory-demo-{:016x}", u64::from_le_bytes(random));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("session-memory: {} cannot be deleted: {error}", self.0.display());
        }
    }
}
