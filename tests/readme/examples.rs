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
fn built(example: &str) -> PathBuf {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(example);
    path
}

fn start(example: &str, more: &[&str]) -> Running {
    let mut process = Command::new(built(example))
        .arg("127.0.0.1:0")
        .args(more)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the example starts (`cargo build --examples` builds it)");
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the line that says where");
    }
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
fn the_store_example_goes_on_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    for seen in [1, 3] {
        let example = start("custom_store", &[directory.path().to_str().unwrap()]);
        let answer = say(&example.addr, "hello", "x-session-id: a");
        assert!(answer.contains("store=files"), "{answer}");
        assert!(answer.contains(&format!("I have seen {seen} messages.")), "{answer}");
    }
}

#[test]
fn the_streaming_example_remembers_what_it_streamed() {
    let example = start("streaming", &[]);
    let first = say(&example.addr, "one", "x-session-id: a");
    assert!(first.contains("text/event-stream") && first.contains("data: [DONE]"), "{first}");
    let second = say(&example.addr, "two", "x-session-id: a");
    assert!(second.contains(r#"{"content":"3 "}"#), "{second}");
}

#[test]
fn the_client_example_sends_the_conversation_for_a_program_that_sends_one_message() {
    let server = start("axum", &[]);
    let output = Command::new(built("client")).args([&server.addr, "one", "two"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.ends_with("So far you said: [\"one\",\"two\"]\n"), "{said}");
}

#[test]
#[cfg(feature = "sqlite")]
fn the_durable_example_goes_on_after_it_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("sessions.db");
    for seen in [1, 3] {
        let example = start("durable", &[file.to_str().unwrap()]);
        let answer = say(&example.addr, "hello", "x-session-id: a");
        assert!(answer.contains(&format!("I have seen {seen} messages.")), "{answer}");
    }
}

#[test]
fn the_decision_example_says_what_was_sent() {
    let example = start("decision", &[]);
    say(&example.addr, "one", "x-session-id: a");
    let second = say(&example.addr, "two", "x-session-id: a");
    assert!(second.contains("x-decided: 3 of 3 messages were sent"), "{second}");
    let unnamed = say(&example.addr, "three", "x-other: y");
    assert!(unnamed.contains("x-decided: no session"), "{unnamed}");
}
