//! Several replicas on one store behave like one, whatever happens to them: histories of concurrent clients with
//! faults on, checked by a complete checker, which is shown to catch deliberately wrong stores.

mod backend;
mod checker;
mod client;
mod history;
mod one_run;
mod replica;
mod runs;
mod sabotage;
mod world;
