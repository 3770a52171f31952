//! What the heads of requests and responses decide, and how they are changed.

use http::{HeaderMap, HeaderName, HeaderValue, header, request, response};
use sha2::{Digest, Sha256};

use super::identify::{Control, Identity, essence, is_json};

/// The reason for which nothing at all may be changed.
pub(crate) const SIGNED: &str = "signed";

/// Why a request is forwarded before its body is looked at.
pub(crate) fn not_ours(control: Control, parts: &request::Parts) -> Option<&'static str> {
    let headers = &parts.headers;
    // A signature over the body (AWS Signature Version 4, RFC 9421) would not survive the splice.
    let signed = headers.get(header::AUTHORIZATION).is_some_and(|v| v.as_bytes().starts_with(b"AWS4-"))
        || headers.keys().any(|name| matches!(name.as_str(), "x-amz-content-sha256" | "signature-input"));
    if signed {
        return Some(SIGNED);
    }
    if control == Control::Off {
        return Some("off");
    }
    (!headers.get(header::CONTENT_TYPE).is_none_or(is_json)).then_some("content_type")
}

/// Why a reply will not be recorded, as far as its head tells.
pub(crate) fn unrecorded(identity: &Identity, head: &response::Parts) -> Option<&'static str> {
    if identity.control == Control::Read {
        return Some("read");
    }
    if !head.status.is_success() {
        return Some("status");
    }
    let recordable = head.headers.get(header::CONTENT_TYPE).is_none_or(|value| {
        is_json(value)
            || essence(value).eq_ignore_ascii_case(b"text/event-stream")
            || essence(value).eq_ignore_ascii_case(b"text/plain")
    });
    (!recordable).then_some("content_type")
}

/// Number of the client's attempt, from 0: OpenAI's and Anthropic's SDKs count their retries in this header.
pub(crate) fn attempt(headers: &HeaderMap) -> Option<u32> {
    const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
    headers.get(RETRY_COUNT)?.to_str().ok()?.parse().ok()
}

/// Digest of the request's idempotency key, as records hold it.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Option<String> {
    const KEY: HeaderName = HeaderName::from_static("idempotency-key");
    let key = headers.get(KEY).filter(|key| !key.is_empty())?;
    let digest = Sha256::digest(key.as_bytes());
    Some(uuid::Uuid::from_slice(&digest[..16]).unwrap_or_default().simple().to_string())
}

/// Makes a head fit a body that was collected, decoded or spliced. Digests of the old body (RFC 9530 and its
/// forerunners) no longer hold.
pub(crate) fn rewrite(headers: &mut HeaderMap, length: usize) {
    // Most heads have none of these: looking at each name once is less than looking each of these up.
    if headers.keys().any(no_longer_fits) {
        let names: Vec<HeaderName> = headers.keys().filter(|name| no_longer_fits(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

/// Whether a header of this name tells something of a body that is no longer so when the body is another.
fn no_longer_fits(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "content-md5"
            | "digest"
            | "content-digest"
            | "repr-digest"
            | "transfer-encoding"
            | "content-encoding"
            | "trailer"
    )
}
