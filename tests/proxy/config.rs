//! The settings of the program, and its start.

use std::{fs, net::TcpListener, time::Instant};

use crate::common::{
    process::{Proxy, command, run, stderr, stdout},
    wire::{PATIENCE, ask},
};

const UPSTREAM: [&str; 2] = ["--upstream", "http://127.0.0.1:9"];
const SECRET: &str = "0123456789abcdef0123456789abcdef-canary";

#[test]
fn an_unknown_key_is_refused_by_name_and_line() {
    let output = check_file("max_reply = \"1 MiB\"\nmax_replay = \"1 MiB\"\n");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("line 2") && text.contains("unknown field `max_replay`"), "{text}");
}

#[test]
fn a_value_that_means_nothing_is_refused_with_its_place() {
    for (key, value, expected) in [
        ("max_reply", "12 apples", "a size"),
        ("idle_timeout", "5", "a time"),
        ("on_disconnect", "shrug", "keep, discard, drain"),
        ("store", "mysql://127.0.0.1", "sqlite:PATH, the URL of a Redis or a PostgreSQL, or memory"),
        ("store", "redis://127.0.0.1:port", "a port that is no number"),
        ("principal", "cookie", "header:NAME"),
        ("require_durability", "much", "about-1s"),
        ("upstream", "127.0.0.1:9", "a URL"),
        ("session_header", "x session", "the name of a header"),
    ] {
        let flag = format!("--{}", key.replace('_', "-"));
        let variable = format!("SESSION_MEMORY_{}", key.to_uppercase());
        let by_flag = run(&["check", &flag, value]);
        let by_env = command().arg("check").env(&variable, value).output().unwrap();
        let by_file = check_file(&format!("{key} = \"{value}\"\n"));
        for (place, output) in [(flag.as_str(), by_flag), (&variable, by_env), ("line 1", by_file)] {
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{key} = {value} in {place}: {text}");
            assert!(text.contains(place), "{place} is not named: {text}");
            assert!(text.contains(expected), "it is not said what {place} takes: {text}");
        }
    }
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    fs::write(&file, "upstream = \"http://127.0.0.1:9\"\nmax_reply = \"5 MiB\"\nmax_event = \"1 MiB\"\nload_timeout = \"3s\"\n")
        .unwrap();
    let output = command()
        .args(["check", "--max-reply", "7 MiB", "--config"])
        .arg(&file)
        .env("SESSION_MEMORY_MAX_REPLY", "6 MiB")
        .env("SESSION_MEMORY_MAX_EVENT", "2 MiB")
        .env("SESSION_MEMORY_MAX_HISTORY", "")
        .output()
        .unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(shown(&text, "max_reply"), "flag 7 MiB");
    assert_eq!(shown(&text, "max_event"), "env 2 MiB");
    assert_eq!(shown(&text, "load_timeout"), "file 3s");
    assert_eq!(shown(&text, "max_history"), "default 32 MiB", "a variable that is empty is not set");
}

#[test]
fn the_configuration_file_may_be_named_by_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    fs::write(&file, "upstream = \"http://127.0.0.1:9\"\npaths = [\"/a\", \"/b\"]\npreserve_host = true\n")
        .unwrap();
    let output = command().arg("check").env("SESSION_MEMORY_CONFIG", &file).output().unwrap();
    let text = stdout(&output);
    assert_eq!(shown(&text, "paths"), "file /a,/b");
    assert_eq!(shown(&text, "preserve_host"), "file true");
}

#[test]
fn every_setting_of_the_table_is_shown_by_check_and_known_to_the_file_and_the_environment() {
    let table = stdout(&run(&["settings", "--markdown"]));
    let names: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(names.len() > 40, "the table has {} settings only", names.len());
    let check = stdout(&run(&[&["check"][..], &UPSTREAM].concat()));
    let help = stdout(&run(&["serve", "--help"]));
    for name in names {
        assert_ne!(shown(&check, name), "", "check does not show {name}");
        assert!(help.contains(&format!("--{}", name.replace('_', "-"))), "there is no flag for {name}");
        let variable = format!("SESSION_MEMORY_{}", name.to_uppercase());
        assert!(help.contains(&variable), "the variable of {name} is not in the help");
        let output = check_file(&format!("{name} = {{}}\n"));
        assert!(!stderr(&output).contains("unknown field"), "the file does not know {name}");
    }
}

#[test]
fn no_secret_is_ever_printed() {
    let directory = tempfile::tempdir().unwrap();
    let (file, config) = (directory.path().join("secret"), directory.path().join("c.toml"));
    fs::write(&file, format!("{SECRET}\n")).unwrap();
    let in_env = command()
        .args(["check", "--session-cookie", "sid"])
        .args(UPSTREAM)
        .env("SESSION_MEMORY_COOKIE_SECRET", SECRET)
        .env("SESSION_MEMORY_PRINCIPAL_SECRET_FILE", &file)
        .output()
        .unwrap();
    assert!(in_env.status.success(), "{}", stderr(&in_env));
    assert_eq!(shown(&stdout(&in_env), "cookie_secret"), "set 1 in the environment");
    assert_eq!(shown(&stdout(&in_env), "principal_secret"), "set 1 in the file");

    fs::write(&config, format!("cookie_secret = \"{SECRET}\"\n")).unwrap();
    let in_file = command().args(["check", "--config"]).arg(&config).output().unwrap();
    assert_eq!(in_file.status.code(), Some(1));
    assert!(stderr(&in_file).contains("cookie_secret"), "the key is not named");
    for output in [in_env, in_file] {
        let all = stdout(&output) + &stderr(&output);
        assert!(!all.contains("canary"), "a secret was printed: {all}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (args, expected) in [
        (&["--session-header", "none"][..], "no request has a session"),
        (&["--session-cookie", "sid", "--missing-session", "issue"], "needs a cookie secret"),
        (&["--max-reply", "1 MiB"], "max_event is larger"),
        (&["--admin", "127.0.0.1:8080"], "the same address"),
        (&["--encryption-accept-plain", "true"], "there is no encryption key"),
        (&["--listen", "0.0.0.0:9"], "would ask itself"),
        (&["--cookie-secret-file", "/nonexistent/secret"], "cannot read cookie_secret"),
    ] {
        let output = run(&[&["check"][..], &UPSTREAM, args].concat());
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
    let short = command()
        .args(["check", "--session-cookie", "sid"])
        .args(UPSTREAM)
        .env("SESSION_MEMORY_COOKIE_SECRET", "short-canary")
        .output()
        .unwrap();
    let text = stderr(&short);
    assert!(text.contains("12 bytes is too short") && !text.contains("canary"), "{text}");
    let missing = run(&["check"]);
    assert!(stderr(&missing).contains("--upstream URL"), "{}", stderr(&missing));
}

#[test]
fn an_unknown_flag_and_no_command_are_exit_code_2() {
    assert_eq!(run(&["serve", "--upstreem", "x"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn a_port_in_use_is_said_and_is_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let start = |args: &[&str]| run(&[&["serve", "--store", "memory"][..], &UPSTREAM, args].concat());
    for output in [start(&["--listen", &address]), start(&["--listen", "127.0.0.1:0", "--admin", &address])] {
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&format!("cannot listen on {address}")), "{}", stderr(&output));
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_exit_code_1_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let corrupt = directory.path().join("corrupt.db");
    fs::write(&corrupt, "this is no database, and it is long enough to be read as one".repeat(100)).unwrap();
    let nowhere = directory.path().join("missing").join("x.db");
    for path in [&corrupt, &nowhere] {
        let store = format!("sqlite:{}", path.display());
        let output = run(&[&["serve", "--listen", "127.0.0.1:0", "--store", &store][..], &UPSTREAM].concat());
        assert_eq!(output.status.code(), Some(1), "{store}");
        assert!(stderr(&output).contains(&path.display().to_string()), "{}", stderr(&output));
    }
}

#[test]
fn a_store_that_forgets_is_said_loudly_and_is_no_durable_store() {
    let proxy = Proxy::start("http://127.0.0.1:9", &["--store", "memory"]);
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    assert_eq!(code, Some(0));
    assert!(log.contains("FORGOTTEN"), "{log}");
    let refused = run(&[
        &["serve", "--listen", "127.0.0.1:0", "--store", "memory", "--require-durability", "fsync"][..],
        &UPSTREAM,
    ]
    .concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("require_durability"), "{}", stderr(&refused));
}

#[test]
fn the_ready_line_names_address_upstream_store_and_durability() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_in(directory.path(), "http://127.0.0.1:9/v1/", &["--store", "sqlite:s.db"]);
    let address = proxy.address;
    assert_ne!(address.port(), 0);
    proxy.signal("TERM");
    let (code, log) = proxy.wait();
    let line = format!(
        "session-memory: listening on http://{address} -> http://127.0.0.1:9/v1 store=sqlite durability=fsync"
    );
    assert!(log.lines().any(|found| found == line), "{log}");
    assert_eq!(code, Some(0));
}

#[test]
fn the_admin_listener_tells_health_readiness_and_metrics() {
    let proxy = Proxy::start("http://127.0.0.1:9", &["--admin", "127.0.0.1:0"]);
    let admin = proxy.admin.unwrap();
    let get = |path: &str| ask(admin, format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
    assert_eq!(get("/healthz").status(), 200);
    assert_eq!(get("/metrics").status(), 200);
    assert_eq!(get("/elsewhere").status(), 404);
    let ready = get("/readyz");
    assert_eq!(ready.status(), 200);
    let body: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
    assert_eq!(body["store"], "memory");
    assert_eq!(body["durability"], "none");
    assert_eq!(body["draining"], false);
}

#[test]
fn a_proxy_whose_store_has_closed_itself_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--store", "sqlite:s.db", "--admin", "127.0.0.1:0", "--log-format", "text"];
    let proxy = Proxy::start_in(directory.path(), "http://127.0.0.1:9", &args);
    let ready = || ask(proxy.admin.unwrap(), "GET /readyz HTTP/1.1\r\nhost: a\r\n\r\n");
    // A store that takes longer than a second to answer is not ready either.
    let began = Instant::now();
    while ready().status() != 200 {
        assert!(began.elapsed() < PATIENCE, "it never gets ready");
    }
    for entry in fs::read_dir(directory.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert_eq!(ready().status(), 503, "it is ready for requests that it must refuse");
    let body = ready().text();
    assert!(body.contains("\"ready\":false") && body.contains("\"draining\":false"), "{body}");
    let chat = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}";
    let reply = ask(
        proxy.address,
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-session-id: s\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{chat}",
            chat.len()
        ),
    );
    assert_eq!(reply.status(), 503, "{}", reply.text());
    proxy.signal("TERM");
    let (_, log) = proxy.wait();
    assert!(!log.contains('\x1b'), "colours in a log that is no terminal: {log}");
}

fn check_file(text: &str) -> std::process::Output {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.toml");
    fs::write(&file, text).unwrap();
    command().args(["check", "--config"]).arg(&file).output().unwrap()
}

/// What `check` shows of a setting, without the padding.
fn shown(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    line.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")).unwrap_or_default()
}
