//! What one server holds, says and allows.

use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use tower_session_memory::{
    history::Record,
    session::{Principal, SessionKey},
    store::{
        Appended, Cached, Cursor, Durability, HistoryStore, Page, RedisStore, Retention, Scope,
        StoreErrorKind, TtlRefresh,
        redis::{OpenProblem, RedisBuilder},
    },
};

use crate::redis::{
    load::{PATIENCE, brief, unhurried, unknown},
    support::{allow, inspect_and_erase, key, refused_a_script, say, texts, turn},
};
use crate::{servers::Redis, turns::add_at};

async fn open(server: &Redis) -> RedisStore {
    unhurried(server.url()).open().await.unwrap()
}

fn the_log(server: &Redis) -> String {
    server.cli(&["keys", "session-memory:log:*"])
}

#[tokio::test]
async fn redis_cli_shows_a_session_as_lines_of_json() {
    let server = Redis::start();
    let store = open(&server).await;
    let cursor = say(&store, &key("a"), r#"{"role":"user","content":"hi"}"#).await;
    say(&store, &key("a"), r#"{"role":"user","content":"again"}"#).await;
    let shown = server.cli(&["get", &the_log(&server)]);
    let lines: Vec<&str> = shown.lines().collect();
    let header: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&header["v"], &header["count"]), (&"1.0".into(), &2.into()));
    assert_eq!(header["session"], key("a").digest().to_hex());
    assert_eq!(header["head"], lines[0].len() + 1);
    let frame: serde_json::Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(frame["turn"], cursor.newest.unwrap().to_string().replace('-', ""));
    assert_eq!(lines[4], r#"{"role":"user","content":"hi"},{"role":"assistant","content":"yes"}"#);
}

#[tokio::test]
async fn a_trimmed_log_stays_small_and_remembers_what_it_held() {
    let server = Redis::start();
    let store = unhurried(server.url())
        .with_retention(Retention::new().with_max_turns(NonZeroUsize::new(3).unwrap()))
        .open()
        .await
        .unwrap();
    let mut turns = Vec::new();
    let mut at = store.load(&key("a"), None).await.unwrap().cursor;
    for number in 0..200 {
        let turn = turn(&key("a"), &format!("{number:0500}"));
        let Appended::Appended { cursor: next, .. } = store.append(&key("a"), &at, &turn).await.unwrap()
        else {
            panic!()
        };
        (at, _) = (next, turns.push(turn));
        let loaded = store.load(&key("a"), None).await.unwrap();
        assert_eq!(loaded.cursor, at);
        assert_eq!(loaded.records.len(), turns.len().min(3));
        assert_eq!(loaded.records.last().unwrap().id(), turns.last().unwrap().id());
    }
    let length: usize = server.cli(&["strlen", &the_log(&server)]).parse().unwrap();
    assert!(length < 8 * 900 + 200 * 32, "{length} bytes for three turns of less than 900");
    for turn in &turns {
        let answer = store.append(&key("a"), &at, turn).await.unwrap();
        assert_eq!(
            answer,
            Appended::AlreadyThere(at),
            "a turn that was trimmed long ago is not stored again"
        );
    }
}

#[tokio::test]
async fn a_bound_in_bytes_counts_records_and_not_what_the_layout_puts_around_them() {
    let server = Redis::start();
    let a = key("a");
    let turns: Vec<Record> = (0..4).map(|number| turn(&a, &format!("turn {number}"))).collect();
    let three: usize = turns[1..].iter().map(|turn| turn.bytes().len()).sum();
    let bounded = || {
        let retention = Retention::new().with_max_bytes(three as u64);
        unhurried(server.url()).with_retention(retention).open()
    };
    // A store that has not read the log leaves it to the server.
    for knows_the_log in [true, false] {
        let mut store = bounded().await.unwrap();
        let mut at = store.load(&a, None).await.unwrap().cursor;
        for (number, turn) in turns.iter().enumerate() {
            if !knows_the_log {
                store = bounded().await.unwrap();
            }
            at = add_at(&store, &a, &at, turn).await;
            assert_eq!(store.load(&a, None).await.unwrap().records.len(), 3.min(number + 1));
        }
        store.delete(&a).await.unwrap();
    }
}

/// How many bytes a server has sent.
fn sent(server: &Redis) -> u64 {
    let stats = server.cli(&["info", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test]
async fn a_warm_load_moves_only_what_is_new() {
    let server = Redis::start();
    let store = open(&server).await;
    let mut cursor = say(&store, &key("a"), &"x".repeat(1 << 20)).await;
    for _ in 0..2 {
        cursor = say(&store, &key("a"), "short").await;
    }
    let before = sent(&server);
    for _ in 0..10 {
        assert!(store.load(&key("a"), Some(&cursor)).await.unwrap().records.is_empty());
    }
    let moved = sent(&server) - before;
    assert!(moved < 100_000, "{moved} bytes for ten loads that found nothing new");
}

#[tokio::test]
async fn a_warm_load_is_no_script() {
    let server = Redis::start();
    let (store, other) = (open(&server).await, open(&server).await);
    say(&store, &key("a"), "one").await;
    let mut cursor = store.load(&key("a"), None).await.unwrap().cursor;
    for _ in 0..10 {
        let next = say(&other, &key("a"), "more").await;
        server.cli(&["config", "resetstat"]);
        let loaded = store.load(&key("a"), Some(&cursor)).await.unwrap();
        assert_eq!((loaded.records.len(), loaded.cursor, loaded.from_start), (1, next, false));
        let unchanged = store.load(&key("a"), Some(&next)).await.unwrap();
        assert_eq!((unchanged.records.len(), unchanged.cursor, unchanged.from_start), (0, next, false));
        let stats = server.cli(&["info", "commandstats"]);
        assert!(stats.contains("cmdstat_getrange:calls=6,"), "three for each load: {stats}");
        assert!(!stats.contains("cmdstat_eval"), "{stats}");
        cursor = next;
    }
    other.delete(&key("a")).await.unwrap();
    let deleted = store.load(&key("a"), Some(&cursor)).await.unwrap();
    assert_eq!((deleted.records.len(), deleted.from_start), (0, true));
    server.cli(&["flushall"]);
    let unknown = store.load(&key("a"), Some(&cursor)).await.unwrap();
    assert_eq!((unknown.records.len(), unknown.from_start), (0, true));
}

/// Number of calls of a command since this function was last called.
fn calls(server: &Redis, command: &str) -> u64 {
    let stats = server.cli(&["info", "commandstats"]);
    server.cli(&["config", "resetstat"]);
    let count = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    count.map_or(0, |count| count.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_turn_is_one_script_and_another_only_where_somebody_else_was_there() {
    let server = Redis::start();
    let (store, other) = (open(&server).await, open(&server).await);
    calls(&server, "evalsha");
    for count in 1..=5 {
        assert_eq!(say(&store, &key("a"), "one").await.count, count);
        assert_eq!((calls(&server, "evalsha"), calls(&server, "eval")), (1, 0), "turn {count}");
    }
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    say(&other, &key("a"), "theirs").await;
    calls(&server, "evalsha");
    let turn = turn(&key("a"), "mine");
    let Appended::Appended { cursor, .. } = store.append(&key("a"), &at, &turn).await.unwrap() else {
        panic!()
    };
    assert_eq!((cursor.count, cursor.newest), (7, Some(turn.id())));
    assert_eq!(calls(&server, "evalsha"), 2);
    assert_eq!(store.append(&key("a"), &at, &turn).await.unwrap(), Appended::AlreadyThere(cursor));
    assert_eq!(texts(&store, "a").await, ["one", "one", "one", "one", "one", "theirs", "mine"]);
}

#[tokio::test]
async fn a_log_is_the_same_whoever_worked_it_out() {
    let server = Redis::start();
    let open = |prefix| unhurried(server.url()).with_prefix(prefix).open();
    let (knows, asks) = (open("knows").await.unwrap(), open("asks").await.unwrap());
    let (mut known, mut asked) = (None, None);
    for text in ["one", "two", &"x".repeat(2000), "four"] {
        let turn = turn(&key("a"), text);
        known = Some(crate::turns::add(&knows, &key("a"), &turn).await);
        // A store that never read the log leaves it to the script.
        let stranger = open("asks").await.unwrap();
        let start = asks.load(&key("a"), None).await.unwrap().cursor;
        let Appended::Appended { cursor: next, .. } =
            stranger.append(&key("a"), &start, &turn).await.unwrap()
        else {
            panic!()
        };
        asked = Some(next);
    }
    let (known, asked) = (known.unwrap(), asked.unwrap());
    assert_eq!((known.count, known.newest), (asked.count, asked.newest));
    let value =
        |prefix: &str| server.cli(&["--raw", "get", &server.cli(&["keys", &format!("{prefix}:log:*")])]);
    let but = |value: String| {
        let (line, rest) = value.split_once('\n').unwrap();
        let mut header: serde_json::Value = serde_json::from_str(line).unwrap();
        for time in ["at", "created"] {
            assert!(header[time].take().as_u64().unwrap() > 1_000_000_000_000_000, "microseconds since 1970");
        }
        assert_eq!(header["epoch"].take().as_str().unwrap().len(), 32);
        (line.len(), header, rest.to_owned())
    };
    assert_eq!(but(value("knows")), but(value("asks")));
}

#[tokio::test]
async fn a_turn_is_not_added_to_a_log_that_was_cut_off_since_it_was_read() {
    let server = Redis::start();
    let store = open(&server).await;
    say(&store, &key("a"), "one").await;
    let at = say(&store, &key("a"), "two").await;
    let log = the_log(&server);
    let loaded = store.load(&key("a"), None).await.unwrap();
    assert_eq!(loaded.cursor, at);
    let newest = loaded.records.last().unwrap().bytes().len();
    let cut = server.cli(&["strlen", &log]).parse::<usize>().unwrap() - newest - 10;
    server.cli(&[
        "eval",
        "redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, ARGV[1]))",
        "1",
        &log,
        &cut.to_string(),
    ]);
    let error = store.append(&key("a"), &at, &turn(&key("a"), "three")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
}

#[tokio::test]
async fn stores_that_share_what_they_know_read_on_where_the_other_was() {
    let server = Redis::start();
    let one = open(&server).await;
    let shares = unhurried(server.url()).with_knowledge_of(&one).open().await.unwrap();
    let stranger = open(&server).await;
    let mut at = say(&one, &key("a"), "one").await;
    one.load(&key("a"), None).await.unwrap();
    calls(&server, "evalsha");
    for (store, other) in [(&one, &shares), (&shares, &one)] {
        let appended = store.append(&key("a"), &at, &turn(&key("a"), "more")).await.unwrap();
        assert_eq!(calls(&server, "evalsha"), 1);
        let Appended::Appended { cursor, before } = appended else { panic!("{appended:?}") };
        assert_eq!(before, at.newest);
        let loaded = other.load(&key("a"), Some(&cursor)).await.unwrap();
        assert_eq!((loaded.records.len(), loaded.from_start, loaded.cursor), (0, false, cursor));
        assert_eq!(calls(&server, "evalsha"), 0);
        at = cursor;
    }
    stranger.load(&key("a"), Some(&at)).await.unwrap();
    assert_eq!(calls(&server, "evalsha"), 1, "who does not share asks the script");
}

#[tokio::test]
async fn a_turn_that_was_added_through_a_cache_is_not_read_back_and_its_load_is_no_script() {
    let server = Redis::start();
    let kept = NonZeroUsize::new(4).unwrap();
    let open = || unhurried(server.url()).with_retention(Retention::new().with_max_turns(kept)).open();
    let (store, other) = (Cached::new(open().await.unwrap()), open().await.unwrap());
    say(&store, &key("a"), "one").await;
    // Of a log that is trimmed, and of one that another replica has added to, the script that reads the log tells where
    // the turn stands.
    for theirs in [false, true, false, true, true, false] {
        let at = store.load(&key("a"), None).await.unwrap().cursor;
        let mut ids: Vec<_> = Vec::new();
        if theirs {
            ids.extend(say(&other, &key("a"), "theirs").await.newest);
        }
        let turn = turn(&key("a"), &"x".repeat(200_000));
        ids.push(turn.id());
        store.append(&key("a"), &at, &turn).await.unwrap();
        calls(&server, "evalsha");
        let before = sent(&server);
        let loaded = store.load(&key("a"), None).await.unwrap();
        let moved = sent(&server) - before;
        assert!(theirs || moved < 20_000, "{moved} bytes");
        let scripts = calls(&server, "evalsha");
        // Where more of a log is trimmed than kept it is written anew, and what this process knew of it is no more.
        assert!(
            scripts == 0 || theirs && loaded.trimmed > 0,
            "{scripts} scripts for turn {}",
            loaded.cursor.count
        );
        let newest = &loaded.records[loaded.records.len() - ids.len()..];
        assert_eq!(newest.iter().map(|turn| turn.id()).collect::<Vec<_>>(), ids);
        assert_eq!(loaded.cursor.count, at.count + ids.len() as u64);
        assert_eq!(newest[ids.len() - 1].bytes(), turn.bytes());
        let whole = other.load(&key("a"), None).await.unwrap();
        assert_eq!((loaded.records.len(), loaded.trimmed), (whole.records.len(), whole.trimmed));
    }
}

#[tokio::test]
async fn a_turn_that_was_added_through_a_cache_and_lost_with_its_server_is_not_answered() {
    let server = Redis::start();
    let (store, other) = (Cached::new(open(&server).await), open(&server).await);
    say(&store, &key("a"), "one").await;
    let log = the_log(&server);
    say(&store, &key("a"), "two").await;
    for theirs in [&[][..], &["SIX"], &["SIX", "TEN"]] {
        server.cli(&["copy", &log, "before", "replace"]);
        let at = store.load(&key("a"), None).await.unwrap().cursor;
        store.append(&key("a"), &at, &turn(&key("a"), "six")).await.unwrap();
        server.cli(&["copy", "before", &log, "replace"]);
        for text in theirs {
            say(&other, &key("a"), text).await;
        }
        let loaded = store.load(&key("a"), Some(&at)).await.unwrap();
        assert_eq!((loaded.records.len(), loaded.from_start), (theirs.len(), false));
        assert_eq!(loaded.cursor, other.load(&key("a"), None).await.unwrap().cursor);
        server.cli(&["copy", "before", &log, "replace"]);
    }
}

#[tokio::test]
async fn a_turn_that_was_added_behind_another_than_the_cursors_is_read_back_with_it() {
    let server = Redis::start();
    let (store, other) = (Cached::new(open(&server).await), open(&server).await);
    say(&store, &key("a"), "one").await;
    let log = the_log(&server);
    server.cli(&["copy", &log, "before"]);
    say(&store, &key("a"), "two").await;
    let at = store.load(&key("a"), None).await.unwrap().cursor;
    server.cli(&["copy", "before", &log, "replace"]);
    let theirs = say(&other, &key("a"), "TWO").await;
    let appended = store.append(&key("a"), &at, &turn(&key("a"), "six")).await.unwrap();
    let Appended::Appended { cursor, before } = appended else { panic!("{appended:?}") };
    assert_eq!(cursor.count, at.count + 1, "as if nothing had been lost");
    assert_eq!(before, theirs.newest);
    let loaded = store.load(&key("a"), Some(&at)).await.unwrap();
    assert_eq!((loaded.records.len(), loaded.from_start), (3, true), "the cursor's turn is not in the log");
    assert_eq!(texts(&store, "a").await, ["one", "TWO", "six"]);
}

/// What a failover leaves: the log as it was before, and then other turns, each as long as those that were lost.
#[tokio::test]
async fn a_warm_load_notices_that_other_turns_stand_where_its_own_stood() {
    let server = Redis::start();
    let (store, other) = (open(&server).await, open(&server).await);
    say(&store, &key("a"), "one").await;
    let log = the_log(&server);
    let until = |texts: &'static [&str]| {
        let (store, server, log) = (&other, &server, &log);
        async move {
            server.cli(&["copy", "before", log, "replace"]);
            for text in texts {
                say(store, &key("a"), text).await;
            }
        }
    };
    server.cli(&["copy", &log, "before"]);
    until(&["two", "six"]).await;
    let cursor = store.load(&key("a"), None).await.unwrap().cursor;
    for texts in [&["TWO"][..], &["TWO", "SIX"], &["TWO", "SIX", "TEN"], &["TWO", "SIX", "TEN", "ONE"]] {
        until(texts).await;
        let loaded = store.load(&key("a"), Some(&cursor)).await.unwrap();
        assert!(loaded.from_start, "the cursor's turn is not in the log: {texts:?}");
        assert_eq!(loaded.records.len(), 1 + texts.len());
    }
}

#[tokio::test]
async fn a_header_of_a_newer_minor_version_is_kept_and_a_newer_major_refused() {
    let server = Redis::start();
    let kept = NonZeroUsize::new(2).unwrap();
    let store =
        unhurried(server.url()).with_retention(Retention::new().with_max_turns(kept)).open().await.unwrap();
    say(&store, &key("a"), "one").await;
    // What a 1.7 might write: one member more, and everything after it further back.
    let name = the_log(&server);
    let value = server.cli(&["get", &name]);
    let (header, rest) = value.split_once('\n').unwrap();
    let more = r#","novelty":[1,2.50]}"#;
    let grown = |field: &str, by: usize, header: String| {
        let (before, after) = header.split_once(&format!("\"{field}\":")).unwrap();
        let end = after.find([',', '}']).unwrap();
        let number: usize = after[..end].trim().parse().unwrap();
        format!("{before}\"{field}\":{:end$}{}", number + by, &after[end..])
    };
    let mut newer = header.replace("\"1.0\"", "\"1.7\"").replace('}', more);
    for field in ["head", "first", "last"] {
        newer = grown(field, more.len() - 1, newer);
    }
    server.cli(&["set", &name, &format!("{newer}\n{rest}\n"), "keepttl"]);
    say(&store, &key("a"), "two").await;
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
    let header = || server.cli(&["get", &name]).lines().next().unwrap().to_owned();
    assert!(header().ends_with(more) && header().starts_with("{\"v\":\"1.7\""), "{}", header());
    // More of the log is trimmed than kept: it is written anew.
    for text in ["three", "four", "five", "six"] {
        say(&store, &key("a"), text).await;
    }
    assert_eq!(texts(&store, "a").await, ["five", "six"]);
    assert!(!server.cli(&["get", &name]).contains("three"), "it was written anew");
    assert!(header().ends_with(more) && header().starts_with("{\"v\":\"1.7\""), "{}", header());

    let at = store.load(&key("a"), None).await.unwrap().cursor;
    server.cli(&["setrange", &name, "6", "2"]);
    let newer = server.cli(&["get", &name]);
    let refusals = [
        store.load(&key("a"), None).await.map(drop).unwrap_err(),
        store.load(&key("a"), Some(&at)).await.map(drop).unwrap_err(),
        store.append(&key("a"), &at, &turn(&key("a"), "seven")).await.map(drop).unwrap_err(),
    ];
    for error in refusals {
        assert_eq!(error.kind(), StoreErrorKind::Conflict);
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains("the stored log has layout version 2.7; this program reads 1.x"), "{text}");
    }
    assert_eq!(server.cli(&["get", &name]), newer, "what cannot be read is not written over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_moved_to_another_key_is_refused_and_its_connection_dropped() {
    let server = Redis::start();
    let builder = unhurried(server.url()).with_connections(NonZeroUsize::MIN);
    let store = builder.open().await.unwrap();
    // A connection ends with the answer that was wrong; its successor has a higher id.
    let dropped = |since: u64| {
        let list = server.cli(&["client", "list", "type", "normal"]);
        let ids = list.lines().filter(|line| !line.contains("cmd=client|list"));
        let ids = ids.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse::<u64>().ok());
        ids.max().filter(|id| *id > since)
    };
    let mine = say(&store, &key("a"), "mine").await;
    let from = the_log(&server);
    say(&store, &key("b"), "theirs").await;
    let to = server.cli(&["keys", "*:b"]);
    server.cli(&["copy", &from, &to, "replace"]);
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::anonymous() };
    let page = Page::new(10);
    let mut connection = dropped(0).expect("a connection");
    for way in ["whole", "tail", "append", "listing"] {
        let error = match way {
            "whole" => store.load(&key("b"), None).await.unwrap_err(),
            "tail" => store.load(&key("b"), Some(&mine)).await.unwrap_err(),
            "append" => store.append(&key("b"), &mine, &turn(&key("b"), "more")).await.unwrap_err(),
            _ => store.sessions(&scope, &page).await.unwrap_err(),
        };
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{way}: a log of another session is no answer");
        assert!(error.is_foreign(), "{way}: {error:?}");
        crate::servers::wait_until("another connection", || match dropped(connection) {
            Some(next) => std::mem::replace(&mut connection, next) != next,
            None => false,
        });
    }
    assert_eq!(texts(&store, "a").await, ["mine"], "the store goes on");
    store.delete(&key("b")).await.unwrap();
    say(&store, &key("b"), "anew").await;
}

#[tokio::test]
async fn a_key_that_holds_something_else_is_an_error_and_not_written_over() {
    let server = Redis::start();
    let store = open(&server).await;
    let at = say(&store, &key("a"), "one").await;
    let name = the_log(&server);
    for damage in [&["set", &name, "something else"][..], &["setrange", &name, "700", "x"]] {
        server.cli(&["del", &name]);
        server.cli(damage);
        assert_eq!(store.load(&key("a"), None).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    }
    server.cli(&["del", &name]);
    server.cli(&["rpush", &name, "a list"]);
    assert_eq!(store.load(&key("a"), None).await.unwrap_err().kind(), StoreErrorKind::Corrupt);
    let error = store.append(&key("a"), &at, &turn(&key("a"), "two")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    assert_eq!(server.cli(&["lrange", &name, "0", "-1"]), "a list");
}

#[tokio::test]
async fn a_log_that_is_cut_off_is_never_read_as_a_shorter_one() {
    let server = Redis::start();
    let store = open(&server).await;
    let first = say(&store, &key("a"), "one").await;
    say(&store, &key("a"), "two").await;
    let name = the_log(&server);
    let whole = server.cli(&["get", &name]);
    for length in (1..whole.len()).step_by(7) {
        server.cli(&["set", &name, &whole[..length]]);
        for after in [None, Some(&first)] {
            let error = store.load(&key("a"), after).await.err();
            let kind = error.map(|error| error.kind());
            assert_eq!(kind, Some(StoreErrorKind::Corrupt), "cut at {length}");
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_is_worth_what_the_server_is_set_to() {
    for (args, level) in [
        (&["--appendonly", "no"][..], Durability::None),
        (&["--appendonly", "yes"], Durability::AboutOneSecond),
        (&["--appendonly", "yes", "--appendfsync", "no"], Durability::Process),
        (&["--appendonly", "yes", "--appendfsync", "always"], Durability::Fsync),
    ] {
        let server = Redis::start_with(args);
        assert_eq!(open(&server).await.durability().await.unwrap(), level, "{args:?}");
    }
}

#[tokio::test]
async fn the_rights_that_are_documented_are_enough_and_leave_the_durability_unknown() {
    let server = Redis::start();
    allow(&server, "");
    let url = format!("redis://memory:pass%40word@127.0.0.1:{}/0", server.port());
    let store = unhurried(&url)
        .with_retention(Retention::new().with_max_turns(NonZeroUsize::new(2).unwrap()))
        .open()
        .await
        .unwrap();
    for text in ["one", "two", "three", "four", "five"] {
        say(&store, &key("a"), text).await;
    }
    store.delete(&key("a")).await.unwrap();
    let cursor = say(&store, &key("a"), "six").await;
    assert_eq!(store.load(&key("a"), Some(&cursor)).await.unwrap().cursor, cursor);
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::anonymous() };
    let page = Page::new(10);
    assert_eq!(store.sessions(&scope, &page).await.unwrap().sessions.len(), 1);
    inspect_and_erase(&store).await;
    assert!(!refused_a_script(&server), "{}", server.cli(&["acl", "log"]));
    assert_eq!(store.durability().await.unwrap(), Durability::Unknown);
    server.cli(&["acl", "setuser", "memory", "-evalsha"]);
    let error = RedisStore::builder(&url).open().await.unwrap_err().to_string();
    assert!(error.contains("evalsha"), "the start names the right that is missing: {error}");
}

#[tokio::test]
async fn a_wrong_password_is_said_at_once_and_never_shown() {
    let server = Redis::start_with(&["--requirepass", "right"]);
    for user in ["", "default"] {
        let url = format!("redis://{user}:s3cret-word@127.0.0.1:{}", server.port());
        let builder =
            RedisStore::builder(&url).with_timeouts(Duration::from_secs(30), Duration::from_secs(60));
        assert!(!format!("{builder:?}").contains("s3cret"), "{builder:?}");
        let error = builder.open().await.unwrap_err();
        assert!(matches!(error.problem(), OpenProblem::Connect(error) if !error.is_transient()), "{error}");
        let mut text = format!("{error} {error:?}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!("{error} {error:?}"));
            cause = error.source();
        }
        assert!(!text.contains("s3cret"), "{text}");
        assert!(text.contains(&server.port().to_string()), "it says where: {text}");
    }
    let url = format!("redis://:right@127.0.0.1:{}/3", server.port());
    say(&unhurried(url).open().await.unwrap(), &key("a"), "one").await;
    assert!(server.cli(&["-n", "3", "keys", "*:log:*"]).contains("session-memory"), "in its database");
}

#[tokio::test]
async fn a_unix_socket_and_a_prefix_reach_the_same_server_and_other_keys() {
    let server = Redis::start();
    let store = open(&server).await;
    say(&store, &key("a"), "one").await;
    let socket = format!("unix:{}", server.socket().display());
    let same = unhurried(&socket).open().await.unwrap();
    assert_eq!(texts(&same, "a").await, ["one"]);
    let other = unhurried(format!("{socket}?prefix=other")).open().await.unwrap();
    assert!(texts(&other, "a").await.is_empty());
    say(&other, &key("a"), "two").await;
    assert!(server.cli(&["keys", "other:*"]).contains("other:log:"));
}

#[tokio::test]
async fn what_a_deletion_leaves_holds_nothing_and_expires() {
    let server = Redis::start();
    let store = unhurried(server.url())
        .with_retention(Retention::new().with_tombstone_ttl(Duration::from_secs(10)))
        .open()
        .await;
    let store = store.unwrap();
    say(&store, &key("a"), "a secret").await;
    let name = the_log(&server);
    store.delete(&key("a")).await.unwrap();
    let left = server.cli(&["get", &name]);
    assert!(left.contains("\"count\":         0") && !left.contains("secret"), "{left}");
    assert_eq!(server.cli(&["keys", "*:list:*"]), "", "nor is it listed");
    crate::servers::wait_until("the tombstone to expire", || server.cli(&["keys", "*"]).is_empty());
}

#[tokio::test]
async fn every_key_expires() {
    let server = Redis::start();
    let store = unhurried(server.url())
        .with_retention(Retention::new().with_ttl(Duration::from_secs(500)))
        .open()
        .await
        .unwrap();
    for id in ["a", "b"] {
        say(&store, &key(id), "one").await;
        say(&store, &key(id), "two").await;
    }
    for name in server.cli(&["keys", "*"]).lines() {
        let left: u64 = server.cli(&["ttl", name]).parse().unwrap();
        // The listings a sixteenth longer, so that not every turn puts their expiry off.
        let most = if name.contains(":log:") { 500 } else { 500 + 500 / 16 };
        assert!((400..=most).contains(&left), "{name} lives {left} s");
    }
}

#[tokio::test]
async fn a_listing_that_was_lost_comes_back_turn_by_turn_and_one_that_lies_is_corrected() {
    let server = Redis::start();
    let store = open(&server).await;
    for id in ["a", "b"] {
        say(&store, &key(id), "one").await;
    }
    let listing = server.cli(&["keys", "*:list:*"]);
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::anonymous() };
    let page = Page::new(10);
    server.cli(&["del", &listing]);
    say(&store, &key("a"), "two").await;
    server.cli(&["zadd", &listing, "1", "never-there"]);
    let listed = store.sessions(&scope, &page).await.unwrap().sessions;
    assert_eq!(listed.iter().map(|s| (s.id.as_str(), s.turns)).collect::<Vec<_>>(), [("a", 2)]);
    assert_eq!(server.cli(&["zcard", &listing]), "1", "what is not there is taken off");
}

async fn listed(store: &RedisStore) -> Vec<String> {
    let scope = Scope { namespace: "test".to_owned(), principal: Principal::anonymous() };
    let page = store.sessions(&scope, &Page::new(10)).await.unwrap();
    page.sessions.iter().map(|session| session.id.as_str().to_owned()).collect()
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_left_out_of_the_listing_of_the_others() {
    let server = Redis::start();
    let store = open(&server).await;
    say(&store, &key("damaged"), "one").await;
    server.cli(&["set", &the_log(&server), "something else"]);
    say(&store, &key("list"), "one").await;
    let name = server.cli(&["keys", "*:log:*:list"]);
    server.cli(&["del", &name]);
    server.cli(&["rpush", &name, "a list"]);
    say(&store, &key("whole"), "one").await;
    assert_eq!(listed(&store).await, ["whole"]);
    assert_eq!(server.cli(&["zcard", &server.cli(&["keys", "*:list:{*"])]), "3", "they stay listed");
}

#[tokio::test]
async fn what_is_kept_alive_by_loads_or_by_what_was_set_before_stays_listed() {
    let server = Redis::start();
    let builder = || unhurried(server.url());
    let briefly =
        builder().with_retention(Retention::new().with_ttl(Duration::from_millis(10))).open().await.unwrap();
    let store = open(&server).await;
    say(&store, &key("a"), "one").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    say(&briefly, &key("b"), "one").await;
    crate::servers::wait_until("b to expire", || server.cli(&["keys", "*:log:*:b"]).is_empty());
    assert_eq!(listed(&store).await, ["a"], "it lives for as long as was set when it was said");
    let listing = server.cli(&["keys", "*:list:{*"]);
    assert!(server.cli(&["pttl", &listing]).parse::<i64>().unwrap() > 0);
    let loaded =
        builder().with_retention(Retention::new().with_refresh(TtlRefresh::OnLoad)).open().await.unwrap();
    say(&loaded, &key("c"), "one").await;
    assert_eq!(
        server.cli(&["pttl", &listing]),
        "-1",
        "loads do not tell the listing that a session lives on"
    );
}

#[tokio::test]
async fn a_log_without_expiry_survives_that_its_turn_is_sent_again() {
    let server = Redis::start();
    let store = open(&server).await;
    let at = say(&store, &key("a"), "one").await;
    let two = turn(&key("a"), "two");
    store.append(&key("a"), &at, &two).await.unwrap();
    assert_eq!(server.cli(&["persist", &the_log(&server)]), "1");
    server.cli(&["config", "resetstat"]);
    let limits =
        |builder: RedisBuilder| builder.with_timeouts(Duration::from_millis(100), Duration::from_millis(300));
    let waiting = brief(&format!("{}?wait_replicas=1", server.url()), limits).await;
    // There is no replica. On a busy machine its time may be over before the server has done anything.
    let until = Instant::now() + PATIENCE;
    while server.calls("setrange") == 0 {
        assert!(Instant::now() < until);
        unknown(&waiting, &at, &two, &store).await;
    }
    assert_eq!(texts(&store, "a").await, ["one", "two"]);
}

/// Appends this number of turns to the session `a`; they, and the cursor after them.
async fn turns_of_a(store: &RedisStore, count: usize) -> (Vec<Record>, Cursor) {
    let a = key("a");
    let turns: Vec<Record> = (0..count).map(|_| turn(&a, "x")).collect();
    let mut at = store.load(&a, None).await.unwrap().cursor;
    for turn in &turns {
        at = add_at(store, &a, &at, turn).await;
    }
    (turns, at)
}

#[tokio::test]
async fn a_late_retry_of_one_of_the_newest_turns_of_a_long_log_is_recognised() {
    let server = Redis::start();
    let store = open(&server).await;
    let (turns, at) = turns_of_a(&store, 1100).await;
    for behind in [1, 2, 500, Retention::REMEMBERED] {
        let late = &turns[turns.len() - behind];
        assert_eq!(store.append(&key("a"), &at, late).await.unwrap(), Appended::AlreadyThere(at), "{behind}");
    }
}

#[tokio::test]
async fn a_turn_of_a_clock_that_is_behind_does_not_make_the_server_walk_the_whole_log() {
    let server = Redis::start();
    let store = open(&server).await;
    let behind = turn(&key("a"), "behind");
    let (_, at) = turns_of_a(&store, 1100).await;
    server.cli(&["config", "resetstat"]);
    assert!(matches!(store.append(&key("a"), &at, &behind).await.unwrap(), Appended::Appended { .. }));
    let read = server.calls("getrange");
    assert!((1024..1050).contains(&read), "{read} frames");
}

#[tokio::test]
async fn a_session_id_cannot_choose_its_hash_slot() {
    let server = Redis::start();
    let store = open(&server).await;
    for number in 0..50 {
        let key = SessionKey::new("{x}", Principal::new("{x}"), format!("{{x}}-{number}").parse().unwrap());
        say(&store, &key, "one").await;
    }
    let names = server.cli(&["keys", "*:log:*"]);
    let tags: std::collections::HashSet<_> =
        names.lines().map(|name| &name[name.find('{').unwrap()..name.find('}').unwrap()]).collect();
    assert_eq!(tags.len(), 50, "every session has a tag of its own");
}
