#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::{convert::Infallible, time::Instant};
use tower::{Layer, Service, service_fn};
use tower_session_memory::{
    SessionMemoryLayer,
    store::{Cached, InMemoryStore},
};

const JSON: &str = r#"{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion","created":1763800000,"model":"gpt-5-2026-01-01","choices":[{"index":0,"message":{"role":"assistant","content":"____0____1____2____3____4____5____6____7____8____9___10___11___12___13___14___15___16___17___18___19___20___21___22___23___24___25___26___27___28___29___30___31___32___33___34___35___36___37___38___39","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29},"service_tier":"default"}"#;

fn main() {
    let mut args = std::env::args().skip(1);
    let n: usize = args.next().unwrap().parse().unwrap();
    let turns: usize = args.next().unwrap().parse().unwrap();
    let cached = args.next().as_deref() == Some("cached");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let layer = if cached {
            SessionMemoryLayer::new(Cached::new(InMemoryStore::new()))
        } else {
            SessionMemoryLayer::new(InMemoryStore::new())
        };
        let inner =
            service_fn(|request: Request<tower_session_memory::RequestBody<Full<Bytes>>>| async move {
                let body = request.into_body();
                let mut body = body;
                let mut len = 0;
                use http_body::Body;
                while !body.is_end_stream() {
                    match body.frame().await {
                        Some(Ok(f)) => {
                            let f: http_body::Frame<Bytes> = f;
                            len += f.data_ref().map_or(0, Bytes::len)
                        }
                        _ => break,
                    }
                }
                std::hint::black_box(len);
                Ok::<_, Infallible>(
                    Response::builder()
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from_static(JSON.as_bytes())))
                        .unwrap(),
                )
            });
        let mut service = layer.layer(inner);
        let body = Bytes::from(format!(
            r#"{{"model":"bench","stream":false,"messages":[{{"role":"user","content":"{}"}}]}}"#,
            "x".repeat(200)
        ));
        let ask = async |service: &mut _, id: String| {
            let request = Request::post("/v1/chat/completions")
                .header("host", "bench")
                .header("authorization", "Bearer sk-bench-0123456789abcdef")
                .header("content-type", "application/json")
                .header("x-session-id", id)
                .body(Full::new(body.clone()))
                .unwrap();
            let service: &mut tower_session_memory::SessionMemory<_> = service;
            let response = service.call(request).await.unwrap();
            let mut b = response.into_body();
            while let Some(f) = b.frame().await {
                std::hint::black_box(f.unwrap());
            }
        };
        if turns > 0 {
            for _ in 0..turns {
                ask(&mut service, "deep".to_owned()).await;
            }
        }
        let start = Instant::now();
        for i in 0..n {
            let id = if turns > 0 { "deep".to_owned() } else { format!("s-{i}") };
            ask(&mut service, id).await;
        }
        println!("{:?} a request", start.elapsed() / n.max(1) as u32);
    });
}
