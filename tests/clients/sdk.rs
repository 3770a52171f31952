//! Conversations of the official `openai` clients for Python and Node, changed only by a default header.
//!
//! The clients are installed under `target/clients/` by `bash tests/run.sh`, which also runs these tests;
//! by themselves: `cargo test --features proxy --test clients -- --ignored sdk::`.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use crate::common::*;
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
};

/// All callers share their sessions here, so that the tests can look them up without the callers' digest.
const SHARED: &str = "principal = \"none\"\n";

/// Which client a case runs in.
#[derive(Clone, Copy)]
enum Client {
    Python,
    Node,
}

impl Client {
    fn command(self) -> Command {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let clients = root.join("target/clients");
        let (program, script) = match self {
            Self::Python => (clients.join("python/bin/python"), root.join("tests/clients/python/cases.py")),
            // Node looks for packages beside the script, so the script is copied to them.
            Self::Node => (clients.join("node-programs/node"), clients.join("node/cases.mjs")),
        };
        assert!(
            clients.join("python/bin/python").exists() && clients.join("node/node_modules/openai").exists(),
            "the clients are not installed under {}: run `bash tests/run.sh --clients`",
            clients.display()
        );
        if matches!(self, Self::Node) {
            std::fs::copy(root.join("tests/clients/node/cases.mjs"), &script).unwrap();
        }
        let mut command = Command::new(program);
        command.arg(script);
        command
    }

    /// Runs a case and fails with what it printed unless it ends well.
    async fn run(self, case: &str, url: &str) {
        let mut command = self.command();
        command.arg(case).arg(url).stdin(Stdio::null()).kill_on_drop(true);
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let output = within(case, command.output()).await.expect("the client starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{case}: {}\n{said}{errors}", output.status);
        assert_eq!(said.lines().last(), Some(format!("ok {case}").as_str()), "{errors}");
    }

    fn session(self, name: &str) -> String {
        match self {
            Self::Python => format!("python-{name}"),
            Self::Node => format!("node-{name}"),
        }
    }
}

async fn shared_pair() -> (Upstream, Proxy) {
    pair_with(|launch| launch.config(SHARED)).await
}

/// The number of messages in each request that the upstream saw.
fn lengths(upstream: &Upstream) -> Vec<usize> {
    upstream.requests().iter().map(|seen| seen.messages().len()).collect()
}

async fn each_turn_sends_only_what_is_new(client: Client, case: &str, turns: usize) {
    let (upstream, proxy) = shared_pair().await;
    client.run(case, &proxy.url()).await;
    assert_eq!(lengths(&upstream), (0..turns).map(|n| 2 * n + 1).collect::<Vec<_>>());
    let stored = proxy.stored_shared(&client.session(case)).await;
    assert_eq!(stored.len(), turns);
    assert!(stored.iter().all(|turn| turn.is_complete() && turn.messages.len() == 2), "{stored:?}");
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_chats_with_only_its_new_message() {
    each_turn_sends_only_what_is_new(Client::Python, "chat", 3).await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn node_chats_with_only_its_new_message() {
    each_turn_sends_only_what_is_new(Client::Node, "chat", 3).await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_streams_with_only_its_new_message() {
    each_turn_sends_only_what_is_new(Client::Python, "stream", 2).await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn node_streams_with_only_its_new_message() {
    each_turn_sends_only_what_is_new(Client::Node, "stream", 2).await;
}

/// The roles of the stored turns.
async fn roles(proxy: &Proxy, session: &str) -> Vec<Vec<String>> {
    let role = |message: &Value| message["role"].as_str().unwrap_or_default().to_owned();
    let turns = proxy.stored_shared(session).await;
    turns.iter().map(|turn| turn.messages.iter().map(role).collect()).collect()
}

async fn a_tool_loop_is_remembered(client: Client, case: &str, session: &str) {
    let (upstream, proxy) = shared_pair().await;
    upstream.set_model(adder);
    client.run(case, &proxy.url()).await;
    let expected = [["user", "assistant"], ["tool", "assistant"], ["user", "assistant"]];
    assert_eq!(roles(&proxy, &client.session(session)).await, expected, "each message is stored once");
    assert_eq!(lengths(&upstream), [1, 3, 5], "and sent once");
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_runs_a_tool_loop_by_hand() {
    a_tool_loop_is_remembered(Client::Python, "tool_loop", "tools").await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn node_runs_a_tool_loop_with_its_own_runner() {
    a_tool_loop_is_remembered(Client::Node, "tool_loop", "tools").await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn node_runs_a_streamed_tool_loop_with_its_own_runner() {
    a_tool_loop_is_remembered(Client::Node, "tool_loop_stream", "tools-stream").await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_keeps_two_asynchronous_conversations_apart() {
    let (_upstream, proxy) = shared_pair().await;
    Client::Python.run("asynchronous", &proxy.url()).await;
    for session in ["python-async-a", "python-async-b"] {
        assert_eq!(proxy.stored_shared(session).await.len(), 2, "{session}");
    }
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn both_clients_can_name_the_session_with_each_request() {
    for client in [Client::Python, Client::Node] {
        let (_upstream, proxy) = shared_pair().await;
        client.run("headers_per_request", &proxy.url()).await;
        for name in ["a", "b"] {
            assert_eq!(proxy.stored_shared(&client.session(name)).await.len(), 2);
        }
    }
}

async fn no_turn_is_missing_after_done(client: Client) {
    let (upstream, proxy) = shared_pair().await;
    upstream.set_model(|seen| echo(seen).held_open());
    client.run("close_at_done", &proxy.url()).await;
    assert_eq!(lengths(&upstream), (0..100).map(|n| 2 * n + 1).collect::<Vec<_>>());
    let stored = proxy.stored_shared(&client.session("done")).await;
    assert_eq!(stored.len(), 100);
    assert!(stored.iter().all(Stored::is_complete), "what ended is no interrupted turn");
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_closes_at_done_a_hundred_times_and_no_turn_is_missing_from_the_next_request() {
    no_turn_is_missing_after_done(Client::Python).await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn node_stops_at_the_finish_a_hundred_times_and_no_turn_is_missing_from_the_next_request() {
    no_turn_is_missing_after_done(Client::Node).await;
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn a_reply_that_the_upstream_drops_is_asked_for_again_and_stored_once() {
    for client in [Client::Python, Client::Node] {
        let (upstream, proxy) = shared_pair().await;
        upstream.push(Reply::none());
        client.run("retry_after_a_dropped_reply", &proxy.url()).await;
        assert_eq!(lengths(&upstream), [1, 1, 3]);
        assert_eq!(proxy.stored_shared(&client.session("retry")).await.len(), 2);
    }
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn a_reply_that_is_lost_on_its_way_to_the_client_is_one_turn_of_the_conversation() {
    for client in [Client::Python, Client::Node] {
        let (upstream, proxy) = shared_pair().await;
        let session = client.session("retry");
        let (addr, _relay) = relay_that_loses_the_first_answer(&proxy, &session).await;
        client.run("retry_after_a_dropped_reply", &format!("http://{addr}")).await;
        assert_eq!(lengths(&upstream), [1, 1, 3], "the retry supersedes the answer that was lost");
        let stored = proxy.stored_shared(&session).await;
        assert_eq!(stored.len(), 3, "which the log keeps");
        assert_eq!(stored[1].parent, tower_session_memory::history::Parent::Root);
    }
}

/// Passes connections on to the proxy; the first is closed when its turn is stored, without an answer.
async fn relay_that_loses_the_first_answer(proxy: &Proxy, session: &str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (upstream, path, session) = (proxy.addr(), proxy.launch().store_path(), session.to_owned());
    let mut relay = JoinSet::new();
    relay.spawn(async move {
        let mut connections = JoinSet::new();
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(upstream).await.unwrap();
        {
            let (mut from, mut to) = (client.split().0, server.split().1);
            tokio::select! {
                _ = tokio::io::copy(&mut from, &mut to) => {}
                () = stored_once(&path, &session) => {}
            }
        }
        let mut answer = [0; 12];
        server.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        drop((client, server));
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let mut server = TcpStream::connect(upstream).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (addr, relay)
}

async fn stored_once(path: &std::path::Path, session: &str) {
    let store = store::open(path).await;
    while store::load_of(&store, &store::shared(store::NAMESPACE), session).await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
#[ignore = "needs the official clients: bash tests/run.sh"]
async fn python_keeps_a_session_in_the_cookie_that_the_proxy_issues() {
    let secret = "cookie-secret-cookie-secret-cookie-secret";
    let settings = "principal = \"none\"\nmissing_session = \"issue\"\nsession_cookie = \"conversation\"\n";
    let (upstream, proxy) =
        pair_with(|launch| launch.config(settings).env("SESSION_MEMORY_COOKIE_SECRET", secret)).await;
    Client::Python.run("cookie_session", &proxy.url()).await;
    assert_eq!(lengths(&upstream), [1, 3, 1], "two clients, two sessions");
    assert!(upstream.requests().iter().all(|seen| seen.header("cookie").is_none()), "the cookie is ours");
}
