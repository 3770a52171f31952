use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What room is given out in, in bytes.
const UNIT: usize = 1024;

/// Room for the request bodies of a layer, all together. A clone speaks of the same room.
#[derive(Clone)]
pub(crate) struct BufferBudget {
    free: Arc<Semaphore>,
    /// With nothing in it, in units.
    whole: usize,
}

/// There is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BufferFull;

/// Room that one body has.
pub(crate) struct BufferShare {
    room: BufferBudget,
    permit: Option<OwnedSemaphorePermit>,
}

impl BufferBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        let whole = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(whole)), whole }
    }

    /// Whether there is room for bodies of these sizes beside each other when there are no others.
    pub(crate) fn fits(&self, bodies: impl IntoIterator<Item = usize>) -> bool {
        bodies.into_iter().map(|bytes| bytes.div_ceil(UNIT)).sum::<usize>() <= self.whole
    }

    /// Room for a body that is to come: none yet.
    pub(crate) fn hold(&self) -> BufferShare {
        BufferShare { room: self.clone(), permit: None }
    }
}

impl BufferShare {
    /// Grows the room to this number of bytes, if it is smaller.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), BufferFull> {
        let has = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = bytes.div_ceil(UNIT).saturating_sub(has);
        if lacks == 0 {
            return Ok(());
        }
        let more =
            Arc::clone(&self.room.free).try_acquire_many_owned(u32::try_from(lacks).unwrap_or(u32::MAX));
        let more = more.map_err(|_| BufferFull)?;
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// The same bytes, which have the room until the last slice of them is dropped: a message that is cut out of a
    /// body holds all of it in memory.
    pub(crate) fn keep(self, bytes: Bytes) -> Bytes {
        match self.permit {
            Some(permit) => Bytes::from_owner(KeptBytes { bytes, _room: permit }),
            None => bytes,
        }
    }
}

struct KeptBytes {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for KeptBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_body_is_free_when_its_last_slice_is_gone() {
        let room = BufferBudget::new(4 * UNIT);
        let mut held = room.hold();
        held.grow(UNIT + 1).unwrap();
        held.grow(3 * UNIT).unwrap();
        let body = held.keep(Bytes::from(vec![b'x'; 3 * UNIT]));
        let slice = body.slice(5..6);
        drop(body);
        assert_eq!(room.hold().grow(2 * UNIT), Err(BufferFull), "the slice holds the body");
        room.hold().grow(UNIT).unwrap();
        drop(slice);
        room.hold().grow(4 * UNIT).unwrap();
    }

    #[test]
    fn a_body_that_found_no_room_leaves_what_it_had() {
        let room = BufferBudget::new(2 * UNIT);
        let mut held = room.hold();
        held.grow(UNIT).unwrap();
        assert_eq!(held.grow(3 * UNIT), Err(BufferFull));
        drop(held);
        room.hold().grow(2 * UNIT).unwrap();
    }
}
