//! A client: it says things in sessions that others use too, through whichever replica is there.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use serde_json::json;

use crate::linearity::{
    history::{Kind, Op, Outcome, Role, Said, Session},
    world::{Plan, World},
};
use crate::{
    common::random::Random,
    common::{Answer, End, Post},
};

/// Number of operations on the sessions of a generation; then other sessions take their place.
const A_GENERATION: usize = 300;

pub struct Client {
    number: usize,
    dice: Random,
    world: Arc<World>,
    /// The conversation as the client knows it, of sessions in which it saw a reply.
    memory: HashMap<Session, Vec<Said>>,
    /// What it said last without seeing a reply.
    unanswered: Option<(Session, Vec<Said>)>,
}

impl Client {
    pub fn new(number: usize, world: Arc<World>) -> Self {
        let dice = Random::of(world.plan.seed, number as u64);
        Self { number, dice, world, memory: HashMap::new(), unanswered: None }
    }

    pub async fn run(mut self) {
        for _ in 0..self.world.plan.ops {
            let number = self.world.number();
            let (session, kind, sent) = self.choose(number);
            let invoked = self.world.now();
            let (outcome, heard) = match kind {
                Kind::Delete => self.delete(&session).await,
                _ => self.ask(number, &session, kind, &sent).await,
            };
            let returned = self.world.now();
            let op =
                Op { number, client: self.number, session, kind, sent, invoked, returned, outcome, heard };
            self.learn(&op);
            self.world.note(op);
        }
    }

    /// Two callers use the same names for their sessions. Those that begin with `d` are deleted now and then.
    fn choose(&mut self, number: usize) -> (Session, Kind, Vec<Said>) {
        let dice = &mut self.dice;
        let principal = ["alice", "bob"][dice.below(2)].to_owned();
        let name = ["b0", "b1", "d0"][dice.below(3)];
        let Plan { seed, tag, .. } = self.world.plan;
        let id = format!("{name}-{seed}-{}{tag}", number / A_GENERATION);
        let session = Session { principal, id };
        let question = Said::user(format!("q{number} {}@{session}", "what ".repeat(dice.below(8))));
        let memory = self.memory.get(&session).filter(|_| name != "d0" && self.world.plan.rewinds == 0);
        match dice.below(20) {
            0 if name == "d0" && self.world.plan.rewinds == 0 => (session, Kind::Delete, vec![]),
            1..=3 => (session, Kind::Read, vec![question]),
            _ if name == "d0" || self.world.plan.rewinds > 0 => (session, Kind::Delta, vec![question]),
            4..=6 if self.unanswered.is_some() => {
                let (session, sent) = self.unanswered.take().unwrap();
                (session, Kind::Retry, sent)
            }
            7 => (session, Kind::Reset, vec![question]),
            8..=10 if memory.is_some() => {
                let sent = memory.unwrap().iter().cloned().chain([question]).collect();
                (session, Kind::Resend, sent)
            }
            11..=13 if memory.is_some() => {
                let sent = edited(memory.unwrap(), question, dice);
                (session, Kind::Edit, sent)
            }
            14 => {
                let instructions = Said::system(format!("s{number} @{session}"));
                (session, Kind::Delta, vec![instructions, question])
            }
            _ => (session, Kind::Delta, vec![question]),
        }
    }

    async fn ask(
        &mut self,
        number: usize,
        session: &Session,
        kind: Kind,
        sent: &[Said],
    ) -> (Outcome, String) {
        let stream = self.dice.one_in(2);
        let leaves = self.dice.one_in(12).then(|| self.dice.millis(25));
        let messages: Vec<_> =
            sent.iter().map(|said| json!({"role": role(said.role), "content": said.text})).collect();
        let body = json!({"model": "m", "stream": stream, "messages": messages}).to_string();
        let post = Post::chat(body)
            .session(&session.id)
            .header("authorization", format!("Bearer {}", session.principal))
            .header("x-op", number.to_string())
            .header("x-tag", session.to_string());
        let post = match kind {
            Kind::Read => post.control("read"),
            Kind::Reset => post.control("reset"),
            Kind::Retry => post.header("x-stainless-retry-count", "1"),
            _ => post,
        };
        let addr = self.replica().await;
        let answer = match leaves {
            None => post.try_send(addr).await,
            Some(time) => match tokio::time::timeout(time, post.try_send(addr)).await {
                Ok(answer) => answer,
                Err(_) => return (Outcome::Left, String::new()),
            },
        };
        match answer {
            Ok(answer) if is_whole(&answer, stream) => (Outcome::Ended, answer.said()),
            _ => (Outcome::Error, String::new()),
        }
    }

    /// Deletes until it is done.
    async fn delete(&self, session: &Session) -> (Outcome, String) {
        let key = World::key(session);
        while let Err(error) = self.world.direct.delete_dyn(&key).await {
            assert!(error.is_transient(), "{error:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        (Outcome::Ended, String::new())
    }

    fn learn(&mut self, op: &Op) {
        if op.kind.is_recorded() && op.outcome == Outcome::Ended {
            let mut known = self.world.shown(op.number).unwrap_or_default();
            known.push(Said::assistant(op.heard.clone()));
            self.memory.insert(op.session.clone(), known);
        }
        if matches!(op.kind, Kind::Delta | Kind::Retry) && op.outcome != Outcome::Ended {
            let branches = op.session.id.starts_with('b') && self.world.plan.rewinds == 0;
            self.unanswered = branches.then(|| (op.session.clone(), op.sent.clone()));
        }
    }

    async fn replica(&mut self) -> SocketAddr {
        let mut replicas = self.world.replicas.subscribe();
        let all = replicas.wait_for(|all| all.iter().any(Option::is_some)).await.unwrap();
        let alive: Vec<_> = all.iter().flatten().copied().collect();
        alive[self.dice.below(alive.len())]
    }
}

/// A part of the conversation, up to a question that is asked again, or with a new one after it.
fn edited(memory: &[Said], question: Said, dice: &mut Random) -> Vec<Said> {
    let first_reply = memory.iter().position(|said| said.role == Role::Assistant).unwrap();
    let kept = first_reply + 1 + dice.below(memory.len() - first_reply);
    let mut sent = memory[..kept].to_vec();
    if sent.last().is_some_and(|said| said.role == Role::Assistant) {
        sent.push(question);
    }
    sent
}

fn is_whole(answer: &Answer, stream: bool) -> bool {
    answer.status == 200
        && answer.end == End::Clean
        && (!stream || answer.text().ends_with("data: [DONE]\n\n"))
}

fn role(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User | Role::Other => "user",
        Role::Assistant => "assistant",
    }
}
