//! Connections that change their protocol (WebSocket): after both sides agree, bytes pass in both directions.

use http::{HeaderValue, Request, Response, Version, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::{Work, hop_by_hop::has_token};

/// The protocol that a client asks for, and its connection once it has changed.
#[derive(Clone)]
pub(crate) struct Upgrade {
    pub(crate) protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// Takes the upgrade off a request, if it asks for one.
    ///
    /// `h2c` is ignored: its requests would reach the upstream without a check at this proxy.
    pub(crate) fn take<B>(request: &mut Request<B>) -> Option<Self> {
        let asked = request.version() == Version::HTTP_11
            && has_token(request.headers(), header::CONNECTION, "upgrade");
        let protocol = request.headers_mut().remove(header::UPGRADE).filter(|_| asked)?;
        if protocol.as_bytes().eq_ignore_ascii_case(b"h2c") {
            request.headers_mut().remove("http2-settings");
            return None;
        }
        let client = hyper::upgrade::on(request);
        Some(Self { protocol, client })
    }

    /// Passes bytes in both directions once both sides have changed, until one side or all work ends.
    pub(crate) fn join<B>(self, response: &mut Response<B>, work: &Work) {
        let upstream = hyper::upgrade::on(response);
        let all = work.clone();
        work.tasks.spawn(async move {
            tokio::select! {
                () = all.abort.cancelled() => all.was_cut(),
                () = pass(self.client, upstream) => {}
            }
        });
    }
}

async fn pass(client: OnUpgrade, upstream: OnUpgrade) {
    let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
        tracing::debug!("an upgrade was agreed on and then did not happen");
        return;
    };
    let io = |upgraded: Upgraded| TokioIo::new(upgraded);
    if let Err(error) = tokio::io::copy_bidirectional(&mut io(client), &mut io(upstream)).await {
        tracing::debug!(%error, "an upgraded connection broke");
    }
}
