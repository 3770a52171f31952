//! Stored records: any bytes are read or refused, and what was read gives the same bytes back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tower_session_memory::{
    history::Record,
    session::{Principal, SessionKey},
};

fuzz_target!(|data: &[u8]| {
    let Ok(id) = "fuzz".parse() else { return };
    let key = SessionKey::new("default", Principal::anonymous(), id);
    // The seeds and whatever grows out of them carry a placeholder for the session's digest.
    let digest = key.digest().to_hex();
    let text = data.to_vec();
    let record = match find(&text, b"SESSIONSESSIONSESSIONSESSIONSESS") {
        Some(at) => [&text[..at], digest.as_bytes(), &text[at + 32..]].concat(),
        None => text,
    };
    let record = Bytes::from(record);
    let Ok(read) = Record::decode(record.clone(), key.digest()) else { return };
    assert_eq!(read.bytes(), &record, "a record is kept as it was stored");
    if let Some(turn) = read.turn() {
        let items: Vec<_> = turn.items().map(|item| item.raw().clone()).collect();
        assert_eq!(items.join(&b","[..]), &turn.item_bytes()[..], "the items are the inserted bytes");
        assert_eq!(items.len(), turn.len());
        let instructions: Vec<_> = turn.instructions().map(|item| item.raw().clone()).collect();
        assert_eq!(instructions.join(&b","[..]), &turn.instruction_bytes()[..]);
    }
    assert!(Record::decode(record, SessionKey::new("other", Principal::anonymous(), key.id().clone()).digest()).is_err());
});

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
