//! What it costs to record a reply while it passes, beside copying its bytes once.
//!
//! `cargo bench --bench recording`
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tower_session_memory::protocol::{Protocol, ReplyKind, ReplyLimits, openai_chat::OpenAiChat};

const LIMITS: ReplyLimits = ReplyLimits { reply: 8 << 20, event: 4 << 20 };

/// A stream of 500 text deltas as OpenAI sends them, a frame each.
fn frames() -> Vec<Vec<u8>> {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-BmvKcYrLaWPvlCmPHqRqZPyqzVYzL\",\"object\":\"chat.completion.chunk\",\
             \"created\":1763800000,\"model\":\"gpt-5-2026-01-01\",\"service_tier\":\"default\",\
             \"system_fingerprint\":\"fp_7eeb46f068\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
             \"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
        )
        .into_bytes()
    };
    let text = (0..500).map(|i| chunk(&format!("{{\"content\":\" token{i}\"}}"), "null"));
    text.chain([chunk("{}", "\"stop\""), b"data: [DONE]\n\n".to_vec()]).collect()
}

fn recording(c: &mut Criterion) {
    let frames = frames();
    let body = frames.concat();
    let choice = format!(
        "{{\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{}\",\"refusal\":null}},\
         \"finish_reason\":\"stop\"}}]}}",
        "word ".repeat(body.len() / 5)
    );
    let protocol = OpenAiChat::default();
    let mut group = c.benchmark_group("recording");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("copy", |b| {
        b.iter(|| {
            let mut copy = Vec::with_capacity(body.len());
            frames.iter().for_each(|frame| copy.extend_from_slice(black_box(frame)));
            copy
        });
    });
    group.bench_function("stream_a_frame_at_a_time", |b| {
        b.iter(|| {
            let mut recorder = protocol.recorder(ReplyKind::EventStream, LIMITS);
            for frame in &frames {
                black_box(recorder.feed(black_box(frame)));
            }
            recorder.finish().unwrap()
        });
    });
    group.bench_function("stream_in_16_kib", |b| {
        b.iter(|| {
            let mut recorder = protocol.recorder(ReplyKind::EventStream, LIMITS);
            for chunk in body.chunks(16 << 10) {
                black_box(recorder.feed(black_box(chunk)));
            }
            recorder.finish().unwrap()
        });
    });
    group.bench_function("json_in_16_kib", |b| {
        b.iter(|| {
            let mut recorder = protocol.recorder(ReplyKind::Json, LIMITS);
            for chunk in choice.as_bytes().chunks(16 << 10) {
                black_box(recorder.feed(black_box(chunk)));
            }
            recorder.finish().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, recording);
criterion_main!(benches);
