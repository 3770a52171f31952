//! The command, and sources for it.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::{
    common::{process, *},
    servers::Redis,
};

/// What an import ended with.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Imported {
    /// The turns that were stored, and those that were there already.
    pub(crate) fn turns(&self) -> (usize, usize) {
        let line = self.line("turns: ");
        let number = |text: &str| text.trim().split(' ').next().unwrap().parse().unwrap();
        (number(line), number(line.split_once("imported, ").unwrap().1))
    }

    /// What follows these words in the summary.
    pub(crate) fn line(&self, start: &str) -> &str {
        let found = self.stdout.lines().find_map(|line| line.strip_prefix(start));
        found.unwrap_or_else(|| panic!("there is no line {start}: {self:?}"))
    }
}

/// The command with these arguments, without whatever settings are in this environment.
pub(crate) fn command(store: &str, args: &[&str]) -> Command {
    let mut command = Command::from(process::command());
    command.arg("import").args(["--store", store]).args(args);
    command.kill_on_drop(true);
    command
}

pub(crate) async fn ended(child: Child) -> Imported {
    let output = within("the import", child.wait_with_output()).await.unwrap();
    Imported {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

pub(crate) async fn import(store: &str, args: &[&str]) -> Imported {
    ended(command(store, args).spawn().unwrap()).await
}

/// The store of a proxy that is started so.
pub(crate) fn store_of(launch: &Launch) -> String {
    format!("sqlite:{}", launch.store_path().display())
}

/// A message as LangChain keeps it.
pub(crate) fn langchain(kind: &str, content: &str) -> String {
    json!({"type": kind, "data": {"content": content, "additional_kwargs": {}, "response_metadata": {},
        "type": kind, "name": null, "id": null}})
    .to_string()
}

/// Pushes messages as LangChain does, each before those that are there.
pub(crate) fn push(redis: &Redis, session: &str, messages: &[String]) {
    let key = format!("message_store:{session}");
    // As many as a command line takes.
    for messages in messages.chunks(500) {
        let mut args = vec!["LPUSH", key.as_str()];
        args.extend(messages.iter().map(String::as_str));
        redis.cli(&args);
    }
}

/// Questions and their answers, from one number to another.
pub(crate) fn exchanges(numbers: std::ops::Range<usize>) -> Vec<String> {
    let exchange = |n| [langchain("human", &format!("q{n}")), langchain("ai", &format!("a{n}"))];
    numbers.flat_map(exchange).collect()
}

/// The same as texts.
pub(crate) fn texts_of(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.flat_map(|n| [format!("q{n}"), format!("a{n}")]).collect()
}

/// The texts of the last request's messages.
pub(crate) fn seen(upstream: &Upstream) -> Vec<String> {
    texts(&upstream.requests().last().expect("there was a request").messages())
}

/// A file as the Agents SDK makes it, with these sessions.
pub(crate) fn agents_file(path: &Path, sessions: &[(&str, &[Value])]) {
    let file = rusqlite::Connection::open(path).unwrap();
    file.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE IF NOT EXISTS agent_sessions (session_id TEXT PRIMARY KEY,
             created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
         CREATE TABLE IF NOT EXISTS agent_messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL,
             message_data TEXT NOT NULL, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);",
    )
    .unwrap();
    for (session, items) in sessions {
        for item in *items {
            let insert = "INSERT INTO agent_messages (session_id, message_data) VALUES (?1, ?2)";
            file.execute(insert, [*session, &item.to_string()]).unwrap();
        }
    }
}
