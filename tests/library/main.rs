//! The library without a server: the layer as a Tower service, reconciliation, records, replies and edited requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod layer;
#[path = "../common/lines.rs"]
mod lines;
mod lookups;
mod observers;
mod reconcile_model;
mod records;
mod replies;
#[cfg(feature = "testing")]
mod scripted_upstream;
mod seam;
mod second_format;
mod splice;
#[path = "../common/talk.rs"]
mod talk;
mod tower_http;
