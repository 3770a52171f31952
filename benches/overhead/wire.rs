//! One round trip to Redis: a script's call as long as a load, and an answer as long.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Measured, Sample},
    error::BoxError,
    rows::Block,
};

const TIMES: usize = 500;

/// Between two calls, as between those of a client that asks one thing at a time: in front of a load the server and
/// its core were idle, and those that were just busy answer sooner.
const PAUSE: Duration = Duration::from_micros(200);

/// # Errors
///
/// When Redis does not answer as it should.
#[expect(clippy::unused_async, reason = "it is awaited like the other targets")]
#[expect(
    clippy::disallowed_methods,
    reason = "nothing else runs on this thread, and a runtime's timers count milliseconds"
)]
pub(crate) async fn measure(address: SocketAddr) -> Result<Block, BoxError> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let script = format!("return '{}'", "y".repeat(330));
    let sha = call(&mut stream, &["SCRIPT", "LOAD", &script])?;
    let sha = sha.lines().nth(1).ok_or("Redis keeps no script")?.to_owned();
    let (key, argument) = ("k".repeat(100), "x".repeat(100));
    let start = Instant::now();
    let mut samples = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        thread::sleep(PAUSE);
        let asked = Instant::now();
        let answer = call(&mut stream, &["EVALSHA", &sha, "1", &key, &argument])?;
        let took = asked.elapsed();
        if !answer.starts_with("$330") {
            return Err(format!("Redis answered {answer}").into());
        }
        samples.push(Sample { first: took, whole: took });
    }
    Ok(Block::new(Measured { samples, gaps: Vec::new(), wall: start.elapsed() }))
}

/// A command, and its answer: a bulk string.
fn call(stream: &mut TcpStream, words: &[&str]) -> Result<String, BoxError> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 1024];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n") || length < 20 {
        match stream.read(&mut answer[length..])? {
            0 => return Err("Redis closed the connection".into()),
            read => length += read,
        }
    }
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
