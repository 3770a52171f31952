//! The examples run: each is started as a user would, and holds a conversation.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

struct Running {
    process: Child,
    addr: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Cargo builds the examples before the tests, beside them.
fn start(example: &str, more: &[&str]) -> Running {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(example);
    let mut process = Command::new(path)
        .arg("127.0.0.1:0")
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts (`cargo build --examples` builds it)");
    let mut line = String::new();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    // Whatever it prints later must find a reader.
    std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
    let addr = line.trim().strip_prefix("listening on ").expect("the line that says where").to_owned();
    Running { process, addr }
}

/// Sends one user message and returns the whole response.
fn say(addr: &str, text: &str, header: &str) -> String {
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(
        stream,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n{header}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn the_axum_example_remembers_what_was_said() {
    let example = start("axum", &[]);
    say(&example.addr, "one", "x-session-id: a");
    let second = say(&example.addr, "two", "x-session-id: a");
    assert!(second.contains(r#"So far you said: [\"one\",\"two\"]"#), "{second}");
    let other = say(&example.addr, "two", "x-session-id: b");
    assert!(other.contains(r#"So far you said: [\"two\"]"#), "{other}");
}

#[test]
fn the_gateway_example_gives_a_memory_to_a_server_that_has_none() {
    let upstream = start("axum", &[]);
    let gateway = start("hyper_proxy", &[&upstream.addr]);
    say(&gateway.addr, "one", "x-session-id: a");
    let second = say(&gateway.addr, "two", "x-session-id: a");
    assert!(second.contains(r#"So far you said: [\"one\",\"two\"]"#), "{second}");
    let direct = say(&upstream.addr, "three", "x-session-id: a");
    assert!(direct.contains(r#"So far you said: [\"three\"]"#), "the id was not sent on: {direct}");
}

#[test]
fn the_session_example_keeps_users_apart_without_any_session_header() {
    let example = start("custom_session", &[]);
    say(&example.addr, "one", "authorization: Bearer alice");
    let alice = say(&example.addr, "two", "authorization: Bearer alice");
    assert!(alice.contains("I have seen 3 messages."), "{alice}");
    let bob = say(&example.addr, "one", "authorization: Bearer bob");
    assert!(bob.contains("I have seen 1 messages."), "{bob}");
    assert!(say(&example.addr, "one", "x-other: y").starts_with("HTTP/1.1 401"));
}

#[test]
fn the_store_example_stores_through_its_wrapper() {
    let example = start("custom_store", &[]);
    say(&example.addr, "one", "x-session-id: a");
    let second = say(&example.addr, "two", "x-session-id: a");
    assert!(second.contains("store=counted"), "{second}");
    assert!(second.contains("one"), "the model saw the first message: {second}");
}
