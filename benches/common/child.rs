//! Programs that this one starts, which say where they listen; some of them are this one in another role.

use std::{
    future::Future,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::ChildStderr,
    sync::mpsc,
    thread,
};

use tokio::io::AsyncReadExt;

use crate::error::BoxError;

/// What a proxy says when it listens, before its address.
const READY: &str = "listening on http://";

/// Tells the parent where this child listens.
pub(crate) fn say_ready(address: SocketAddr) {
    eprintln!("{READY}{address}");
}

/// Runs a child's work until its parent is gone, which ends its standard input.
pub(crate) async fn until_orphaned(work: impl Future<Output = Result<(), BoxError>>) -> Result<(), BoxError> {
    tokio::select! {
        ended = work => ended,
        _ = async { tokio::io::stdin().read_u8().await } => Ok(()),
    }
}

/// Reads what a child says to its end, passes on what is not expected, and finds where it listens.
pub(crate) fn ready(stderr: ChildStderr) -> mpsc::Receiver<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    let mut lines = BufReader::new(stderr);
    thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            let address = line.split_once(READY).and_then(|(_, rest)| rest.split_whitespace().next());
            match address.and_then(|address| address.parse().ok()) {
                Some(address) => drop(sender.send(address)),
                None if is_expected(&line) => {}
                None => eprint!("{line}"),
            }
            line.clear();
        }
        let _ = lines.read_to_end(&mut Vec::new());
    });
    receiver
}

/// Lines of a good run: the warning of a memory that forgets, information, an end in good order, and what `valgrind`
/// and `strace` say of themselves.
fn is_expected(line: &str) -> bool {
    let told = ["FORGOTTEN", "INFO", "finishing what has begun", "stopped; every reply ended"];
    line.starts_with("==") || line.starts_with("strace:") || told.iter().any(|told| line.contains(told))
}
