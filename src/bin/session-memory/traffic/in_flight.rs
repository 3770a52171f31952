//! State of one request that passes through the layer: the one extension that the server inserts.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;

use super::Upgrade;

/// State of a request that the server hands to the forwarding service: an extension of the request.
#[derive(Clone)]
pub(crate) struct InFlight {
    /// Address of the client.
    pub(crate) client: SocketAddr,
    pub(crate) slot: RequestSlot,
    /// The change of protocol that the client asks for.
    pub(crate) upgrade: Option<Upgrade>,
}

/// A request's slot among `max_requests`, from its head to the end of its reply.
///
/// A reply that is drained after its client has left holds the slot, too. The last clone gives it back.
pub(crate) type RequestSlot = Arc<OwnedSemaphorePermit>;

pin_project! {
    /// A body that holds its request's slot until it ends, or is dropped.
    pub(crate) struct SlotHeld<B> {
        #[pin]
        inner: B,
        slot: Option<RequestSlot>,
    }
}

impl<B> SlotHeld<B> {
    pub(crate) fn new(inner: B, slot: Option<RequestSlot>) -> Self {
        Self { inner, slot }
    }
}

impl<B: Body<Data = Bytes>> Body for SlotHeld<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
