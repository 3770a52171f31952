//! One record: sealed, and opened again.

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305,
    aead::{Aead, Payload},
};

use super::{
    keys::{KeyRing, Subkey, is_key_id},
    seal_error::SealError,
};
use crate::{
    history::{Record, RecordId},
    session::SessionKey,
    store::{Cursor, Epoch},
};

pub(super) const CODING: &str = "xchacha20-poly1305";

/// A turn that was opened, and the place in the log that it was built on.
pub(super) struct Opened {
    pub(super) turn: Record,
    pub(super) base: Cursor,
}

pub(super) fn seal(
    ring: &KeyRing,
    session: &SessionKey,
    at: &Cursor,
    turn: &Record,
) -> Result<Record, SealError> {
    let (id, key) = ring.sealing(session);
    turn.enclose(CODING, Some(id), |head| {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(SealError::Randomness)?;
        let mut plain = Vec::with_capacity(BASE + turn.bytes().len() + TAG);
        plain.extend_from_slice(&base_to_bytes(at));
        plain.extend_from_slice(turn.bytes());
        let sealed = cipher(&key)
            .encrypt(&nonce.into(), Payload { msg: &plain, aad: head })
            .map_err(|_| SealError::TooLarge)?;
        Ok([&nonce[..], &sealed].concat())
    })
}

/// Opens an envelope of ours. Everything in the record is either authenticated or what authenticates: the header
/// line is associated data.
pub(super) fn open(ring: &KeyRing, session: &SessionKey, turn: &Record) -> Result<Opened, SealError> {
    let envelope = turn.envelope().filter(|envelope| envelope.coding == CODING).ok_or(SealError::Plain)?;
    let id = envelope.key.filter(|id| is_key_id(id)).ok_or(SealError::NoKey)?;
    let key = ring.opening(id, session).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
    let broken = || SealError::Broken(id.to_owned());
    let (nonce, sealed) = envelope.body.split_first_chunk::<NONCE>().ok_or_else(broken)?;
    let plain = cipher(&key)
        .decrypt(nonce.into(), Payload { msg: sealed, aad: envelope.head })
        .map_err(|_| broken())?;
    let base = base_from_bytes(plain.first_chunk().ok_or_else(broken)?);
    let record = Bytes::from(plain).slice(BASE..);
    Ok(Opened { turn: turn.disclose(record, session.digest()).map_err(SealError::Record)?, base })
}

fn cipher(key: &Subkey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new((&**key).into())
}

const NONCE: usize = 24;
const TAG: usize = 16;
/// Epoch, count, and the id of the newest turn or zeros.
const BASE: usize = 16 + 8 + 16;

fn base_to_bytes(base: &Cursor) -> [u8; BASE] {
    let mut bytes = [0; BASE];
    bytes[..16].copy_from_slice(base.epoch.as_bytes());
    bytes[16..24].copy_from_slice(&base.count.to_be_bytes());
    if let Some(newest) = base.newest {
        bytes[24..].copy_from_slice(newest.as_bytes());
    }
    bytes
}

fn base_from_bytes(bytes: &[u8; BASE]) -> Cursor {
    let (mut epoch, mut count, mut newest) = ([0; 16], [0; 8], [0; 16]);
    epoch.copy_from_slice(&bytes[..16]);
    count.copy_from_slice(&bytes[16..24]);
    newest.copy_from_slice(&bytes[24..]);
    Cursor {
        epoch: Epoch::from_bytes(epoch),
        count: u64::from_be_bytes(count),
        newest: (newest != [0; 16]).then(|| RecordId::from_bytes(newest)),
    }
}
