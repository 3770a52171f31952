//! Any bytes as a session id: refused, or 1 to 128 bytes of visible ASCII that stay what they were.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_session_memory::session::{Principal, SessionId, SessionKey};

fuzz_target!(|bytes: &[u8]| {
    let sound =
        (1..=SessionId::MAX_LEN).contains(&bytes.len()) && bytes.iter().all(|b| (0x21..=0x7E).contains(b));
    let id = SessionId::from_bytes(bytes);
    assert_eq!(id.is_ok(), sound);
    let Ok(id) = id else { return };
    assert_eq!(id.as_str().as_bytes(), bytes);
    assert_eq!(id.as_str().parse::<SessionId>().as_ref(), Ok(&id));

    // Wherever the border between principal and id is drawn, the session is another.
    let key = SessionKey::new("n", Principal::new("p"), id.clone());
    let (principal, rest) = id.as_str().split_at(id.as_str().len() / 2);
    if let Ok(rest) = rest.parse::<SessionId>() {
        let shifted = SessionKey::new("n", Principal::new(format!("p{principal}")), rest);
        assert_eq!(key == shifted, principal.is_empty());
        assert_eq!(key.digest() == shifted.digest(), principal.is_empty());
    }
});
