//! The README tells the truth: what it shows of the binary is the binary's, and what it names is there.
//!
//! (Its Rust code is compiled by the documentation tests: see `Readme` in `src/lib.rs`.)

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod english;
mod examples;

use std::{collections::BTreeSet, fs, path::Path};

const README: &str = include_str!("../../README.md");
const CHANGELOG: &str = include_str!("../../CHANGELOG.md");
const CONTRIBUTING: &str = include_str!("../../CONTRIBUTING.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between `<!-- name -->` and `<!-- /name -->`.
#[cfg(feature = "proxy")]
fn between(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- {name} -->")).expect("the section begins");
    rest.split_once(&format!("<!-- /{name} -->")).expect("the section ends").0.trim()
}

/// The words that follow a text, up to what cannot stand in a name.
fn names_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-';
    let names = text.split(before).skip(1).map(|rest| rest.split(ends).next().unwrap_or_default());
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(feature = "proxy")]
fn output(arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_session-memory"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SESSION_MEMORY_") {
            command.env_remove(name);
        }
    }
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[cfg(feature = "proxy")]
#[test]
fn the_settings_are_those_of_the_binary() {
    let shown = between("settings");
    let printed = output(&["settings", "--markdown"]);
    assert_eq!(shown, printed.trim(), "paste what `cargo run --features proxy -- settings` prints");
}

#[cfg(feature = "import")]
#[test]
fn the_help_is_that_of_the_binary() {
    let shown = between("help");
    let printed = format!("```text\n$ session-memory --help\n{}\n```", output(&["--help"]).trim_end());
    assert_eq!(shown, printed, "paste what `cargo run --features import -- --help` prints");
}

#[cfg(feature = "proxy")]
#[test]
fn the_configuration_file_that_is_shown_is_valid() {
    let files: Vec<&str> = README
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|file| file.starts_with("upstream = "))
        .collect();
    assert_eq!(files.len(), 1, "the README shows one configuration file");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("session-memory.toml");
    fs::write(&path, files[0]).unwrap();
    let checked = output(&["check", "--config", path.to_str().unwrap()]);
    let keys = files[0].lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key);
    for key in keys {
        let line = checked.lines().find(|line| line.starts_with(key)).expect("a key is a setting");
        assert!(line.contains(" file "), "{key} is not taken from the file: {line}");
    }
}

#[test]
fn every_file_that_is_linked_exists() {
    let mut links = 0;
    for text in [README, CHANGELOG, CONTRIBUTING] {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            links += 1;
            let path = target.split('#').next().unwrap();
            assert!(root().join(path).exists(), "there is no {target}");
        }
    }
    assert!(links >= 8, "only {links} links were found: are they still written as [text](target)?");
}

#[test]
fn every_example_that_is_named_exists_and_every_one_that_exists_is_named() {
    let named: BTreeSet<_> = names_after(README, "(examples/")
        .into_iter()
        .map(|name| name.strip_suffix(".rs").unwrap_or(name).to_owned())
        .collect();
    let there: BTreeSet<_> = fs::read_dir(root().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(named, there);
    let run = names_after(README, "--example ");
    assert!(!run.is_empty(), "the README runs no example");
    for example in run {
        assert!(there.contains(example), "there is no example {example}");
    }
}

#[test]
fn every_script_and_test_that_a_command_names_exists() {
    for script in names_after(README, "bash tests/") {
        assert!(root().join(format!("tests/{script}.sh")).exists(), "there is no tests/{script}.sh");
    }
    for test in names_after(README, "--test ") {
        assert!(root().join(format!("tests/{test}/main.rs")).exists(), "there is no tests/{test}/main.rs");
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for feature in names_after(README, "--features ") {
        assert!(manifest.contains(&format!("\n{feature} = ")), "there is no feature {feature}");
    }
}

#[test]
fn every_test_that_holds_a_promise_exists() {
    let promises = include_str!("../README.md").split_once("\n## Promises\n").expect("the promises follow").1;
    let mut named = 0;
    for name in promises.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
        named += 1;
        let (krate, rest) = name.split_once("::").unwrap();
        let last = rest.rsplit("::").next().unwrap();
        let mut sources = String::new();
        let mut paths = vec![root().join("tests").join(krate)];
        let mut module = false;
        while let Some(path) = paths.pop() {
            module |= path.file_stem().is_some_and(|stem| stem == last);
            if path.is_dir() {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
        assert!(module || sources.contains(&format!("fn {last}(")), "tests/README.md: there is no {name}");
    }
    assert!(named >= 50, "only {named} tests are named: are they still written as `crate::module::test`?");
}

#[test]
fn every_metric_is_named_and_every_one_that_is_named_is_counted() {
    let mut counted = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let source = fs::read_to_string(&path).unwrap();
                counted.extend(names_after(&source, "\"session_memory_").into_iter().map(str::to_owned));
            }
        }
    }
    let named: BTreeSet<_> = names_after(README, "`session_memory_").into_iter().map(str::to_owned).collect();
    assert_eq!(named, counted, "left: in the README; right: in the source");
}

#[test]
fn every_feature_is_listed() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, features) = manifest.split_once("[features]\n").unwrap();
    let features = features.split("\n[").next().unwrap();
    // `failpoints` is for this crate's own crash tests.
    let names = features.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    for name in names.filter(|name| !["default", "failpoints"].contains(name) && !name.starts_with(' ')) {
        assert!(README.contains(&format!("| `{name}` |")), "the feature {name} is not in the table");
    }
}
