//! Random conversations against a model: a plain list of turns with parents.
//!
//! Clients of every habit (deltas, resends, windows, edits, retries, appends, resets) take turns on one
//! session and serialise what they remember in their own way. After each request the model says which bytes
//! the upstream must see, and which conversation must be stored.

mod said;

use std::num::NonZeroUsize;

use bytes::Bytes;
use proptest::prelude::*;
use said::{Said, Sent};
use tower_session_memory::{
    Instructions, Window,
    history::{ClientCase, Item, Log, TurnParts, TurnState},
    protocol::{Draft, Protocol, openai_chat::OpenAiChat},
    session::{Principal, SessionKey},
    unstable::{Incoming, Mode, Plan, reconcile},
};

#[derive(Debug, Clone)]
struct Step {
    client: Client,
    /// Whether the new messages are results for the head's calls, if it has any; else they are `users` user messages.
    answers: bool,
    users: usize,
    system: Option<u8>,
    style: u8,
    reply: Answer,
}

#[derive(Debug, Clone, Copy)]
enum Client {
    Delta,
    Resend,
    Window(prop::sample::Index),
    Edit { turn: prop::sample::Index, kept: prop::sample::Index, goes_on: bool },
    Again,
    Append,
    Reset,
    Unrelated,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Text,
    Calls(usize),
    Interrupted,
}

/// What a client sends: R, and how.
struct Request {
    mode: Mode,
    retried: bool,
    system: Option<String>,
    rest: Vec<Sent>,
}

/// What must come of it.
struct Expected {
    case: Option<ClientCase>,
    /// The stored messages that stand before R upstream.
    inserted: Vec<String>,
    /// Whether the instructions of the parent's path go upstream if the client sends none.
    instructed: bool,
    parent: Option<usize>,
    /// How many messages of R are stored already.
    known: usize,
}

struct Turn {
    parent: Option<usize>,
    system: Option<String>,
    sent: Vec<Sent>,
    reply: Sent,
    interrupted: bool,
}

#[derive(Default)]
struct World {
    turns: Vec<Turn>,
    log: Log,
    spoken: usize,
    /// The last request in full, if sending it again is a matter of course.
    last: Option<(Vec<Sent>, Option<String>, Again)>,
}

/// What the same request is when it comes again.
#[derive(Clone, Copy)]
enum Again {
    Retry { known: usize },
    Edit { known: usize },
}

impl World {
    fn text(&mut self, who: &str) -> String {
        self.spoken += 1;
        format!("{who} {} é😀 \"/\\", self.spoken)
    }

    fn path(&self, head: Option<usize>) -> Vec<usize> {
        let mut path: Vec<_> = std::iter::successors(head, |&turn| self.turns[turn].parent).collect();
        path.reverse();
        path
    }

    fn head(&self) -> Option<usize> {
        self.turns.len().checked_sub(1)
    }

    /// The path without unanswered calls: takes away the last one until there is none.
    fn view(&self, path: &[usize], next: &[Sent]) -> Vec<usize> {
        let mut view = path.to_vec();
        while let Some(at) = (0..view.len()).rev().find(|&at| {
            let calls = self.turns[view[at]].reply.said.calls();
            let follows = view.get(at + 1).map_or(next, |turn| &self.turns[*turn].sent);
            !calls.is_empty() && !follows.iter().any(|message| message.said.answers(calls))
        }) {
            view.remove(at);
        }
        view
    }

    fn messages(&self, path: &[usize]) -> Vec<&Sent> {
        path.iter().flat_map(|&turn| self.turns[turn].sent.iter().chain([&self.turns[turn].reply])).collect()
    }

    fn raw(&self, path: &[usize]) -> Vec<String> {
        self.messages(path).iter().map(|message| message.raw.clone()).collect()
    }

    fn system(&self, path: &[usize]) -> Option<String> {
        path.iter().rev().find_map(|&turn| self.turns[turn].system.clone())
    }

    /// The new messages of a step.
    fn news(&mut self, step: &Step) -> Vec<Sent> {
        let calls = self.turns.last().map_or(Vec::new(), |turn| turn.reply.said.calls().to_vec());
        let said: Vec<_> = if step.answers && !calls.is_empty() {
            calls.into_iter().map(|call| Said::Result { call, text: self.text("result") }).collect()
        } else {
            (0..step.users).map(|_| Said::User(self.text("user"))).collect()
        };
        said.iter().map(|said| said.in_style(step.style)).collect()
    }

    fn exchange(&mut self, style: u8) -> Vec<Sent> {
        let said = [Said::User(self.text("x")), Said::Assistant(self.text("y")), Said::User(self.text("z"))];
        said.iter().map(|said| said.in_style(style)).collect()
    }

    fn request(&mut self, step: &Step) -> (Request, Expected) {
        let system = step.system.map(|n| format!(r#"{{"role":"system","content":"S{n}"}}"#));
        let mut request = Request { mode: Mode::Recognize, retried: false, system, rest: Vec::new() };
        let path = self.path(self.head());
        let mut expected = Expected {
            case: Some(ClientCase::New),
            inserted: Vec::new(),
            instructed: false,
            parent: self.head(),
            known: 0,
        };
        let restyled = |messages: &[&Sent]| -> Vec<Sent> {
            messages
                .iter()
                .zip(0_u8..)
                .map(|(m, at)| m.said.in_style(step.style.rotate_left(at.into())))
                .collect()
        };
        match step.client {
            Client::Reset => {
                request.mode = Mode::Reset;
                request.rest = self.exchange(step.style);
                expected.parent = None;
            }
            Client::Unrelated => {
                request.rest = self.exchange(step.style);
                if !path.is_empty() {
                    expected.case = Some(ClientCase::Unrelated);
                }
                expected.parent = None;
            }
            Client::Append if !path.is_empty() => {
                request.mode = Mode::Append;
                request.rest = self.exchange(step.style);
                expected.case = Some(ClientCase::Delta);
                expected.instructed = true;
                expected.inserted = self.raw(&self.view(&path, &request.rest));
            }
            Client::Again if self.last.is_some() => self.again(&mut request, &mut expected),
            Client::Edit { turn, kept, goes_on } if path.len() > 1 && self.view(&path, &[]) == path => {
                let whole = 1 + turn.index(path.len() - 1);
                let edited = &self.turns[path[whole]].sent;
                let kept = kept.index(edited.len() + 1);
                request.rest = restyled(&self.messages(&path[..whole]));
                expected.known = request.rest.len();
                request.rest.extend(restyled(&edited[..kept].iter().collect::<Vec<_>>()));
                if goes_on || kept < edited.len() {
                    request.rest.push(Said::User(self.text("edited")).in_style(step.style));
                }
                expected.case = Some(ClientCase::Edit);
                expected.parent = Some(path[whole - 1]);
            }
            Client::Resend | Client::Window(_) if !path.is_empty() => {
                let news = self.news(step);
                let view = self.view(&path, &news);
                let known = self.messages(&view);
                let forgotten = match step.client {
                    Client::Window(at) if known.len() > 1 => 1 + at.index(known.len() - 1),
                    _ => 0,
                };
                request.rest = restyled(&known[forgotten..]);
                expected.known = request.rest.len();
                expected.case = match (request.rest.is_empty(), forgotten) {
                    (true, _) => Some(ClientCase::Delta),
                    (false, 0) if view == path => Some(ClientCase::Resend),
                    // Without the turns that healing hides, everything may be a window of the stored path.
                    (false, 0) => None,
                    (false, _) => Some(ClientCase::Window),
                };
                expected.instructed = expected.case != Some(ClientCase::Resend);
                if expected.case.is_none() {
                    request.system.get_or_insert_with(|| r#"{"role":"system","content":"S"}"#.to_owned());
                }
                expected.inserted = known[..forgotten].iter().map(|message| message.raw.clone()).collect();
                request.rest.extend(news);
            }
            _ => {
                request.rest = self.news(step);
                if !path.is_empty() {
                    expected.case = Some(ClientCase::Delta);
                    expected.instructed = true;
                    expected.inserted = self.raw(&self.view(&path, &request.rest));
                }
            }
        }
        (request, expected)
    }

    /// The last request once more, with the same bytes.
    fn again(&self, request: &mut Request, expected: &mut Expected) {
        let (rest, system, again) = self.last.clone().unwrap();
        request.retried = !self.turns.last().unwrap().interrupted;
        request.rest = rest;
        request.system = system;
        expected.parent = self.turns.last().unwrap().parent;
        match again {
            Again::Edit { known } => (expected.case, expected.known) = (Some(ClientCase::Edit), known),
            Again::Retry { known } => {
                let view = self.view(&self.path(expected.parent), &request.rest);
                let mut inserted = self.raw(&view);
                inserted.truncate(inserted.len() - known);
                (expected.case, expected.known) = (Some(ClientCase::Retry), known);
                (expected.inserted, expected.instructed) = (inserted, true);
            }
        }
    }

    fn remember(&mut self, request: &Request, expected: &Expected, healed: bool) {
        use ClientCase::{Delta, Edit, New, Resend, Retry, Unrelated, Window};
        let known = expected.known;
        let again = match expected.case {
            _ if request.mode != Mode::Recognize || healed && known > 0 => None,
            Some(New | Delta | Unrelated | Window | Retry) => Some(Again::Retry { known }),
            Some(Resend | Edit) => Some(Again::Edit { known }),
            _ => None,
        };
        self.last = again.map(|again| (request.rest.clone(), request.system.clone(), again));
    }

    fn step(&mut self, step: &Step) {
        let (request, expected) = self.request(step);
        let before = self.path(expected.parent);
        let healed = self.view(&before, &request.rest) != before;
        let instructions = self.system(&before);

        let body = body(&request);
        let draft = OpenAiChat::new().read(&body).unwrap();
        let plan = self.plan(&draft, &request, Window::UNBOUNDED);
        let upstream = OpenAiChat::new().edit(&draft, &plan.insertion()).concat();

        let said_by = |request: &Request| request.rest.iter().map(|m| m.raw.clone()).collect::<Vec<_>>();
        let mut sees = Vec::from_iter(request.system.clone());
        sees.extend(instructions.clone().filter(|_| sees.is_empty() && expected.instructed));
        sees.extend(expected.inserted.clone());
        sees.extend(said_by(&request));
        let seen = OpenAiChat::new().read(&upstream.clone().into()).unwrap();
        let seen = [seen.instructions, seen.items].concat();
        assert_eq!(seen.iter().map(raw).collect::<Vec<_>>(), sees, "what upstream sees");
        let tail = &body[draft.insert_at..];
        assert!(
            upstream.starts_with(&body[..draft.insert_at]) && upstream.ends_with(tail),
            "the client's bytes"
        );
        if let Some(case) = expected.case {
            assert_eq!(plan.case, case);
        }
        self.check_small_window(&draft, &request, &plan);

        self.remember(&request, &expected, healed);
        self.commit(step, request, &expected, &draft, &plan, instructions);
    }

    fn plan(&self, draft: &Draft, request: &Request, window: Window) -> Plan {
        let incoming = Incoming {
            instructions: &draft.instructions,
            items: &draft.items,
            log: &self.log,
            lead: &[],
            mode: request.mode,
            retried: request.retried,
            remember: Instructions::Remember,
            window,
        };
        reconcile(&incoming, &|message| OpenAiChat::new().canonical(message))
    }

    /// A window sends the end of what would be sent without it.
    fn check_small_window(&self, draft: &Draft, request: &Request, whole: &Plan) {
        let small = Window::default().with_turns(NonZeroUsize::new(3).unwrap()).with_bytes(2_000);
        let plan = self.plan(draft, request, small);
        let history = |plan: &Plan| plan.history.join(&b","[..]);
        let (cut, all) = (history(&plan), history(whole));
        assert!(all.ends_with(&cut), "a window is the end of the history");
        assert_eq!((plan.case, plan.parent, &plan.new), (whole.case, whole.parent, &whole.new));
        if !cut.is_empty() && cut.len() < all.len() {
            let role = serde_json::Deserializer::from_slice(&cut).into_iter::<serde_json::Value>().next();
            assert_eq!(role.unwrap().unwrap()["role"], "user", "a window opens where a user speaks");
        }
    }

    fn commit(
        &mut self,
        step: &Step,
        request: Request,
        expected: &Expected,
        draft: &Draft,
        plan: &Plan,
        instructions: Option<String>,
    ) {
        let reply = match step.reply {
            Answer::Text | Answer::Interrupted => Said::Assistant(self.text("assistant")),
            Answer::Calls(count) => Said::Calls((0..count).map(|_| self.text("call")).collect()),
        };
        let reply = reply.in_style(0x10);
        let interrupted = matches!(step.reply, Answer::Interrupted);
        let instructions_of = |draft: &Draft| draft.instructions.clone();
        let sent = draft.items[plan.new.clone()].to_vec();
        let mut turn = TurnParts::new(OpenAiChat::new().format(), sent, vec![message(&reply)]);
        turn.parent = plan.parent;
        turn.instructions = if plan.stores_instructions { instructions_of(draft) } else { Vec::new() };
        turn.state = if interrupted { TurnState::Interrupted } else { TurnState::Complete };
        let key = SessionKey::new("model", Principal::anonymous(), "s".parse().unwrap());
        self.log.extend([turn.into_record(&key)]);
        self.turns.push(Turn {
            parent: expected.parent,
            system: request.system.filter(|system| Some(system) != instructions.as_ref()),
            sent: request.rest[expected.known..].to_vec(),
            reply,
            interrupted,
        });
        self.check_stored();
    }

    fn check_stored(&self) {
        let path = self.path(self.head());
        let stored = self.log.path();
        let messages: Vec<_> = stored.turns().flat_map(|turn| turn.items()).collect();
        assert_eq!(messages.iter().map(raw).collect::<Vec<_>>(), self.raw(&path), "what is stored");
        assert_eq!(stored.instructions().map(|b| String::from_utf8(b.to_vec()).unwrap()), self.system(&path));
        assert_eq!(self.log.records().len(), self.turns.len(), "nothing is ever lost");
    }
}

fn raw(message: &Item) -> String {
    String::from_utf8(message.raw().to_vec()).unwrap()
}

fn body(request: &Request) -> Bytes {
    let messages = request.system.iter().chain(request.rest.iter().map(|m| &m.raw)).cloned();
    let messages = messages.collect::<Vec<_>>().join(" ,\n ");
    format!("{{ \"model\":\"m\",\"messages\" : [ {messages} ] ,\"seed\":1.0}}\n").into()
}

fn message(sent: &Sent) -> Item {
    OpenAiChat::new().item(sent.raw.clone().into()).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let client = prop_oneof![
        4 => Just(Client::Delta),
        3 => Just(Client::Resend),
        3 => any::<prop::sample::Index>().prop_map(Client::Window),
        3 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>())
            .prop_map(|(turn, kept, goes_on)| Client::Edit { turn, kept, goes_on }),
        3 => Just(Client::Again),
        1 => Just(Client::Append),
        1 => Just(Client::Reset),
        1 => Just(Client::Unrelated),
    ];
    let reply = prop_oneof![
        4 => Just(Answer::Text),
        2 => (1_usize..3).prop_map(Answer::Calls),
        1 => Just(Answer::Interrupted),
    ];
    let system = prop::option::weighted(0.3, 0_u8..2);
    (client, prop::bool::weighted(0.7), 1_usize..3, system, any::<u8>(), reply).prop_map(
        |(client, answers, users, system, style, reply)| Step {
            client,
            answers,
            users,
            system,
            style,
            reply,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_client_is_understood_and_nothing_is_lost_or_told_twice(steps in prop::collection::vec(step(), 1..14)) {
        let mut world = World::default();
        for step in &steps {
            world.step(step);
        }
    }
}
