//! The demonstration, and the proxy's own part in a session's request.

use crate::common::{
    process::{Proxy, run, stderr, stdout},
    wire::{PATIENCE, Upstream, ask},
};

#[test]
fn the_demonstration_remembers_across_a_kill() {
    let output = run(&["demo"]);
    let text = stdout(&output);
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    assert!(!text.contains('\x1b'), "there is colour although this is no terminal");
    let last = text.split("Turn 3").nth(1).expect("there is no third turn");
    assert_eq!(last.matches("← remembered").count(), 4, "{last}");
    assert!(last.contains("You are Ada, and your tower will have seven floors."), "{last}");
    assert!(text.contains("kill -9"), "{text}");
    let path = text.split("sqlite:").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let directory = std::path::Path::new(path).parent().unwrap();
    assert!(!directory.exists(), "the demonstration left {} behind", directory.display());
}

#[test]
fn what_names_the_session_stays_here_and_may_not_be_named_by_connection() {
    let reply =
        r#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"a"}}]}"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let (upstream, requests) =
        Upstream::answering(format!("{head}content-length: {}\r\n\r\n{reply}", reply.len()));
    let proxy = Proxy::start(&upstream.url(), &[]);
    let body = r#"{"messages":[{"role":"user","content":"u"}]}"#;
    let post = |extra: &str| {
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             x-session-id: s1\r\n{extra}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for turn in 0..2 {
        let answer = ask(proxy.address, post(""));
        assert_eq!(answer.text(), reply);
        assert_eq!(answer.header("x-session-id"), ["s1"]);
        let request = requests.recv_timeout(PATIENCE).unwrap();
        assert_eq!(request.header("x-session-id"), [""; 0], "the session id went to the upstream");
        assert_eq!(request.header("content-length"), [request.body.len().to_string()]);
        assert_eq!(request.header("transfer-encoding"), [""; 0], "a known length became chunks");
        assert_eq!(request.text().matches("\"role\"").count(), 1 + 2 * turn, "turn {turn}");
    }
    let answer = ask(proxy.address, post("connection: x-session-id\r\n"));
    assert_eq!(answer.status(), 400, "a header of the connection cannot name a session");
    assert!(requests.try_recv().is_err(), "it was refused before it was forwarded");
}
