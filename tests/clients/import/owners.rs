//! Whose the imported sessions are, and what the command refuses.

use crate::import::support::*;
use crate::{common::*, servers::Redis};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A deployment, whom its importer names, and what its client sends.
struct Case {
    settings: &'static [&'static str],
    secret: Option<&'static str>,
    owner: Option<&'static str>,
    arguments: &'static [&'static str],
    client: Option<(&'static str, &'static str)>,
}

const CREDENTIAL: Case = Case {
    settings: &[],
    secret: None,
    owner: Some("authorization: Bearer sk-ada\n"),
    arguments: &[],
    client: Some(("authorization", "Bearer sk-ada")),
};

const CASES: [Case; 6] = [
    CREDENTIAL,
    Case { secret: Some(SECRET), ..CREDENTIAL },
    Case { owner: Some("X-API-Key:sk-ada"), client: Some(("x-api-key", "sk-ada")), ..CREDENTIAL },
    Case {
        settings: &["--principal", "header:x-user"],
        owner: Some("x-user: ada"),
        client: Some(("x-user", "ada")),
        ..CREDENTIAL
    },
    Case { settings: &["--principal", "none"], owner: None, ..CREDENTIAL },
    Case {
        settings: &["--namespace", "tenant"],
        owner: None,
        arguments: &["--anonymous"],
        client: None,
        ..CREDENTIAL
    },
];

#[tokio::test]
async fn sessions_become_those_of_the_owner_that_is_named() {
    let redis = Redis::start();
    push(&redis, "kitchen", &exchanges(0..1));
    let from = format!("langchain-{}", redis.url());
    for (number, case) in CASES.iter().enumerate() {
        let upstream = Upstream::start().await.unwrap();
        let mut launch = Launch::new(&upstream.url());
        let args = [&["--from", &from], case.settings, case.arguments].concat();
        let mut importer = command(&store_of(&launch), &args);
        importer.envs(case.owner.map(|owner| ("SESSION_MEMORY_OWNER", owner)));
        importer.envs(case.secret.map(|secret| ("SESSION_MEMORY_PRINCIPAL_SECRET", secret)));
        let done = ended(importer.spawn().unwrap()).await;
        assert_eq!((done.code, done.turns()), (Some(0), (1, 0)), "case {number}: {done:?}");

        launch = case.settings.chunks(2).fold(launch, |launch, setting| match setting {
            ["--namespace", name] => launch.namespace(name),
            _ => setting.iter().fold(launch, |launch, arg| launch.arg(arg)),
        });
        if let Some(secret) = case.secret {
            launch = launch.env("SESSION_MEMORY_PRINCIPAL_SECRET", secret);
        }
        let proxy = launch.start().await;
        let mut post = Post::chat(body(&[user("q1")])).session("kitchen");
        if let Some((name, value)) = case.client {
            post = post.header(name, value);
        }
        post.send(&proxy).await;
        assert_eq!(seen(&upstream), ["q0", "a0", "q1"], "case {number}: the owner goes on");
        if !case.settings.contains(&"none") {
            let stranger = Post::chat(body(&[user("hi")])).header("authorization", "Bearer sk-bob");
            stranger.header("x-user", "bob").session("kitchen").send(&proxy).await;
            assert_eq!(seen(&upstream), ["hi"], "case {number}: nobody else does");
        }
    }
}

#[tokio::test]
async fn an_owner_in_a_file_is_the_same() {
    let redis = Redis::start();
    push(&redis, "kitchen", &exchanges(0..1));
    let launch = Launch::new("http://127.0.0.1:9");
    let file = launch.dir().join("owner");
    std::fs::write(&file, "authorization: Bearer sk-ada\n").unwrap();
    let from = format!("langchain-{}", redis.url());
    let args = ["--from", from.as_str(), "--owner-file", file.to_str().unwrap()];
    let done = import(&store_of(&launch), &args).await;
    assert_eq!((done.code, done.turns()), (Some(0), (1, 0)), "{done:?}");
    let mut again = command(&store_of(&launch), &args[..2]);
    again.env("SESSION_MEMORY_OWNER", "Authorization:  Bearer sk-ada ");
    let done = ended(again.spawn().unwrap()).await;
    assert_eq!((done.code, done.turns()), (Some(0), (0, 1)), "{done:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_no_secret_is_shown() {
    let redis = Redis::start_with(&["--requirepass", "hunter2"]);
    let launch = Launch::new("http://127.0.0.1:9");
    let store = store_of(&launch);
    let url = format!("langchain-{}", redis.url().replace("//", "//:hunter2@"));
    let good = ["--from", url.as_str()];
    let shared = [&good[..], &["--principal", "none"]].concat();
    let anonymous = [&good[..], &["--anonymous"]].concat();
    let wrong_url = ["--from", "mysql://me:hunter2@host", "--anonymous"];
    let wrong_kind = ["--from", "agents-mysql://me:hunter2@host", "--anonymous"];
    let wrong_port = ["--from", "agents-redis://me:hunter2@host:port", "--anonymous"];
    let wrong_query = ["--from", "agents-redis://me:hunter2@host?pass=hunter2", "--anonymous"];
    let wrong_word = ["--from", &url.replace("hunter2", "hunter22"), "--anonymous"].map(str::to_owned);
    let wrong_word: Vec<&str> = wrong_word.iter().map(String::as_str).collect();
    let cases: [(&str, &[&str], Option<&str>, &str); 12] = [
        (&store, &["--anonymous"], None, "give --from"),
        (&store, &good, None, "whose do the sessions become"),
        (&store, &anonymous, Some("authorization: hunter2"), "both given"),
        (&store, &good, Some("hunter2"), "not one header"),
        (&store, &good, Some("x-user: hunter2"), "decides nothing"),
        (&store, &shared, Some("authorization: hunter2"), "everybody's"),
        ("memory", &anonymous, None, "forgets"),
        (&store, &wrong_url, None, "expected langchain-redis"),
        (&store, &wrong_kind, None, "expected langchain-redis"),
        (&store, &wrong_port, None, "the URL of the source"),
        (&store, &wrong_query, None, "takes prefix and tls_ca"),
        (&store, &wrong_word, None, "Redis"),
    ];
    for (store, args, owner, expected) in cases {
        let mut importer = command(store, args);
        importer.envs(owner.map(|owner| ("SESSION_MEMORY_OWNER", owner)));
        let done = ended(importer.spawn().unwrap()).await;
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(expected), "{expected} is not in {done:?}");
        assert!(!format!("{done:?}").contains("hunter2"), "{done:?}");
    }
    let nobody = import(&store, &[&anonymous[..], &["--session", "nobody"]].concat()).await;
    assert!(nobody.stderr.contains("the source has no session"), "{nobody:?}");
}

#[tokio::test]
async fn a_node_of_a_cluster_is_no_source_because_it_holds_a_part_of_the_sessions() {
    let redis = Redis::start_with(&["--cluster-enabled", "yes"]);
    let launch = Launch::new("http://127.0.0.1:9");
    let from = format!("langchain-{}", redis.url());
    let refused = import(&store_of(&launch), &["--from", &from, "--anonymous"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("a node of a Redis Cluster"), "{refused:?}");
}
