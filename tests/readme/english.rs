//! Comments and Markdown keep to plain words: a program is no person, and a number is named.

use std::fs;

use crate::root;

const ROOTS: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "src",
    "tests",
    "examples",
    "benches",
    "fuzz/fuzz_targets",
];

const WORDS: &[&str] = &["who", "whoever", "nobody", "somebody", "anybody", "told"];
const AFTER_SO: &[&str] = &["many", "long", "often"];

#[test]
fn comments_and_markdown_name_the_number_and_treat_no_program_as_a_person() {
    let (mut files, mut found) = (0, Vec::new());
    let mut paths: Vec<_> = ROOTS.iter().map(|path| root().join(path)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let is_rust = match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => true,
            Some("md") => false,
            _ => continue,
        };
        files += 1;
        let name = path.strip_prefix(root()).unwrap().display();
        let unwanted = unwanted(&fs::read_to_string(&path).unwrap(), is_rust);
        found.extend(unwanted.into_iter().map(|(line, word)| format!("{name}:{line}: {word}")));
    }
    assert!(files >= 100, "only {files} files were found");
    assert!(found.is_empty(), "name the number, or what the program does:\n{}", found.join("\n"));
}

#[test]
fn words_are_found_in_prose_and_not_in_code_or_addresses() {
    assert_eq!(comment("let who = 1; // One"), " One");
    assert_eq!(comment("let who = \"told://a.b\";"), "");
    let found = unwanted("So\nmany.\n`so long`, so `who` often\n<who://a.b> Nobody: nobody_is", false);
    assert_eq!(found, [(2, "many".to_owned()), (4, "nobody".to_owned())]);
}

/// Unwanted words, each with its line's number. A phrase may go over the end of a line.
fn unwanted(text: &str, is_rust: bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut before = String::new();
    for (line, at) in text.lines().zip(1..) {
        let prose = if is_rust { comment(line) } else { line };
        // Every second part stands in backticks.
        let prose = prose.split('`').step_by(2).collect::<Vec<_>>().join(" _ ");
        let words = prose.split_whitespace().filter(|word| !word.contains("://"));
        let words = words.flat_map(|word| word.split(|c: char| !c.is_alphanumeric() && c != '_'));
        for word in words.filter(|word| !word.is_empty()).map(str::to_lowercase) {
            if WORDS.contains(&word.as_str()) || (before == "so" && AFTER_SO.contains(&word.as_str())) {
                found.push((at, word.clone()));
            }
            before = word;
        }
    }
    found
}

/// What follows `//` in a line of Rust, unless that stands in an address.
fn comment(line: &str) -> &str {
    let slashes = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
    slashes.map_or("", |(at, _)| &line[at + 2..])
}
