//! The record codec.

use std::hint::black_box;

use tower_session_memory::history::Record;

use super::{
    fixtures::{key, parts, said, turns},
    operation::Operation,
};

pub(super) fn all() -> Vec<Operation> {
    let write = Operation::new("record: write", || {
        let (key, said) = (key(), said());
        Box::new(move || {
            black_box(parts(black_box(&said)).into_record(&key));
        })
    });
    let read = Operation::new("record: read", || {
        let (digest, turn) = (key().digest(), turns(1).remove(0));
        Box::new(move || {
            black_box(Record::decode(black_box(turn.bytes().clone()), digest).unwrap());
        })
    });
    vec![write, read]
}
