//! A client that holds one conversation after the other, each turn with a replica at random.

use std::{collections::HashMap, io, sync::Arc};

use super::{
    shared::{Counts, Shared, answer},
    talk::{Going, Request, Talk},
};
use crate::common::{random::Random, *};

pub struct Client {
    name: usize,
    random: Random,
    shared: Arc<Shared>,
    counts: Counts,
}

/// What the client saw of a turn.
enum Outcome {
    /// Its end.
    Ended(Answered),
    /// Neither an end nor an error: the replica that answered is gone.
    Broken,
}

/// How a turn came back.
struct Answered {
    client: String,
    store: String,
}

/// A turn that was sent, by the number of its request.
type Sent = HashMap<usize, (String, bool)>;

impl Client {
    pub fn new(name: usize, seed: u64, shared: &Arc<Shared>) -> Self {
        Self { name, random: Random::new(seed), shared: Arc::clone(shared), counts: Counts::default() }
    }

    pub async fn run(mut self) -> Counts {
        while *self.shared.ended.borrow() < self.shared.wanted {
            self.counts.sessions += 1;
            let session = format!("c{}-{}", self.name, self.counts.sessions);
            self.conversation(&session).await;
        }
        self.counts
    }

    async fn conversation(&mut self, session: &str) {
        let mut talk = Talk::new(&mut self.random, session);
        let mut sent = Sent::new();
        for _ in 0..self.random.within(5..20) {
            let number = self.shared.next_number();
            let request = talk.next(&mut self.random, format!("{session} asks {number}"));
            let outcome = self.say(session, number, &request).await;
            let seen = self.shared.seen.lock().unwrap().remove(&number);
            if let Some(seen) = &seen {
                let checked = talk.check(&request, seen);
                checked.unwrap_or_else(|why| panic!("{session}, request {number}, {request:?}: {why}"));
            }
            let ended = matches!(outcome, Outcome::Ended(_));
            sent.insert(number, (request.question.clone(), ended));
            match outcome {
                Outcome::Ended(answered) => {
                    assert!(seen.is_some(), "request {number} never reached the model");
                    if !request.client.is_empty() {
                        assert_eq!(answered.client, request.client, "request {number}: {request:?}");
                    }
                    assert_eq!(answered.store, self.shared.store, "request {number}");
                    self.counts.ended += 1;
                    self.shared.ended.send_modify(|ended| *ended += 1);
                    talk.ended(request, number);
                }
                Outcome::Broken => {
                    self.counts.broken += 1;
                    if talk.broke(request, number) == Going::Lost {
                        break;
                    }
                }
            }
        }
        self.look(session, &sent).await;
    }

    /// One turn, as JSON, as a stream that is read to its end, or as one that is left at `[DONE]`.
    async fn say(&mut self, session: &str, number: usize, request: &Request) -> Outcome {
        let way = self.random.below(3);
        let body = if way == 0 { body(&request.sent) } else { stream_body(&request.sent) };
        let post = Post::chat(body).session(session).header("x-number", number.to_string());
        let post = request.control.into_iter().fold(post, Post::control);
        let addr = self.shared.a_replica(&mut self.random);
        let answered = match self.ask(addr, &post, way == 2).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => return Outcome::Broken,
        };
        assert_eq!(answered.status, 200, "{}", answered.text());
        if way != 2 {
            assert_eq!(answered.said(), answer(number), "the reply is this turn's");
        }
        let (client, store) = (answered.told("client").to_owned(), answered.told("store").to_owned());
        Outcome::Ended(Answered { client, store })
    }

    /// The answer, if its end was seen.
    async fn ask(&self, addr: std::net::SocketAddr, post: &Post, leave: bool) -> io::Result<Option<Answer>> {
        let mut exchange = Exchange::start(addr, &post.bytes()).await?;
        if leave && exchange.status() == 200 {
            return Ok(exchange.reads("data: [DONE]\n\n").await?.then(|| exchange.so_far()));
        }
        let answer = exchange.finish().await?;
        Ok(Some(answer).filter(|answer| answer.end == End::Clean))
    }

    /// Everything whose end was seen is in the store, once and whole; the rest at most once, and whole.
    async fn look(&mut self, session: &str, sent: &Sent) {
        let mut found: HashMap<usize, usize> = HashMap::new();
        for turn in self.shared.launch.stored(store::everybody, session).await {
            let texts = turn.texts();
            let said = texts.last().expect("a turn has messages");
            let number = said.split(' ').nth(1).and_then(|number| number.parse().ok());
            let number: usize = number.unwrap_or_else(|| panic!("{session}: torn: {turn:?}"));
            let (question, _) = sent.get(&number).unwrap_or_else(|| panic!("{session}: foreign: {turn:?}"));
            assert_eq!(texts[texts.len() - 2..], [question.clone(), answer(number)], "{session}: torn");
            assert!(turn.is_complete() && turn.messages.len() == 2, "{session}: torn: {turn:?}");
            *found.entry(number).or_default() += 1;
            self.counts.stored += 1;
        }
        for (number, (question, ended)) in sent {
            let times = found.get(number).copied().unwrap_or_default();
            assert!(times < 2, "{session}: doubled: {question}");
            assert!(times == 1 || !ended, "{session}: lost: {question}");
        }
    }
}
