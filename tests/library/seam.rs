//! The seam of formats in the code: what only a format may know stands in its own folder.

use std::{fs, path::Path};

/// Members and roles of Chat Completions that mean nothing elsewhere.
const OF_THE_FORMAT: &[&str] = &[
    "role",
    "assistant",
    "system",
    "developer",
    "content",
    "choices",
    "refusal",
    "tool_calls",
    "tool_call_id",
    "function_call",
];

/// Rooms of the library that every format shares.
const SHARED: &[&str] = &[
    "body",
    "commit",
    "exchange",
    "history",
    "protocol",
    "reconcile",
    "session",
    "store",
    "view",
    "config.rs",
    "future.rs",
    "layer.rs",
    "lookup.rs",
    "service.rs",
    "telemetry.rs",
];

#[test]
fn no_room_but_a_formats_own_knows_its_names() {
    let (mut files, mut found) = (0, Vec::new());
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths: Vec<_> = SHARED.iter().map(|room| src.join(room)).collect();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            if !path.ends_with("openai_chat") {
                paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".rs") || name.contains("tests") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\n#[expect").next().unwrap();
        for line in code.lines() {
            if knows_the_format(line) {
                found.push(format!("{}: {}", path.strip_prefix(&src).unwrap().display(), line.trim()));
            }
        }
    }
    assert!(files >= 100, "only {files} files were found");
    let listed = [
        "protocol/formats.rs: vec![Arc::new(super::openai_chat::OpenAiChat::new())]",
        "protocol/mod.rs: pub mod openai_chat;",
    ];
    found.sort();
    assert_eq!(found, listed, "the format is named where formats are listed, and nowhere else");
}

fn knows_the_format(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let quoted =
        |word: &&str| code.contains(&format!("\"{word}\"")) || code.contains(&format!("\\\"{word}\\\""));
    code.contains("openai_chat") || code.contains("OpenAiChat") || OF_THE_FORMAT.iter().any(quoted)
}

#[test]
fn names_are_found_in_code_and_not_in_comments() {
    assert!(knows_the_format(r#"    #[serde(rename = "role")]"#));
    assert!(knows_the_format(r#"let text = "{\"tool_calls\":[]}";"#));
    assert!(!knows_the_format(r#"    /// The member `"role"`."#));
    assert!(!knows_the_format("// openai_chat"));
}
