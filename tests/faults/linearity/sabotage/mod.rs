//! Stores that are wrong on purpose, each in a way that a store of this kind has been wrong before. The same
//! clients, faults and checker as for the right ones must catch each within a budget of histories, and must find
//! nothing wrong with the right store in the same histories.

mod defects;
mod naive;

use std::sync::Arc;

use tower_session_memory::store::{Cached, DynHistoryStore, HistoryStore};

use self::{
    defects::{Defect, Defective, redis},
    naive::{Layout, Naive},
};
use crate::linearity::{
    backend::Backend,
    checker::{check, kinds},
    one_run::run,
    replica::{Build, OpenStore},
    runs::{CLIENTS, figures, first_seed, size},
    world::Plan,
};

/// Number of histories within which a sabotaged store must be caught.
const BUDGET: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_turn_id_is_caught() {
    let naive = |layout| opening(move |url| Naive::open(url, layout));
    caught("append without turn id", naive(Layout::NoTurnIds), naive(Layout::Right), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_and_its_counter_in_two_keys_are_caught() {
    let naive = |layout| opening(move |url| Naive::open(url, layout));
    caught("list and counter in two keys", naive(Layout::TwoKeys), naive(Layout::Right), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_is_a_number_is_caught() {
    let numbers = opening(|url| async { Cached::new(Defective::over(url, Defect::IntegerCursor).await) });
    caught("integer cursor", numbers, right(), 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_at_the_end_of_the_body_is_caught() {
    caught("commit at the end of the body", defective(Defect::CommitsLater), right(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_without_its_principal_is_caught() {
    caught("principal left out of the key", defective(Defect::KeyWithoutPrincipal), right(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_cache_is_caught() {
    caught("stale cache", defective(Defect::StaleCache), right(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_a_new_id_is_caught() {
    caught("retry with a new id", defective(Defect::NewIdEachTime), right(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_decryption_is_caught() {
    caught("truncated decrypt", defective(Defect::TruncatesDecryption), right(), 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_ignores_the_epoch_is_caught() {
    caught("no epoch", defective(Defect::IgnoresEpoch), right(), 0).await;
}

/// Runs histories until one is refused, and the same histories on the right store.
async fn caught(what: &str, wrong: OpenStore, right: OpenStore, rewinds: usize) {
    let backend = Backend::redis().await;
    let (wrong, right) = (Build::Local(wrong), Build::Local(right));
    let (_, ops) = size();
    for seed in first_seed()..first_seed() + BUDGET {
        let plan = Plan { seed, tag: "-wrong", clients: CLIENTS, ops, rewinds };
        let found = check(&run(&plan, &backend, &wrong).await.history);
        let plan = Plan { tag: "-right", ..plan };
        let fine = run(&plan, &backend, &right).await;
        let unfounded = check(&fine.history);
        assert!(unfounded.is_empty(), "the right store, {plan:?}: {}", unfounded[0]);
        if let Some(first) = found.first() {
            println!(
                "{what}: caught with seed {seed}, history {} of {BUDGET}: {} violations, {:?}; the first: {first}",
                seed - first_seed() + 1,
                found.len(),
                kinds(&found),
            );
            println!("  the right store in its place: {}", figures(&fine));
            return;
        }
    }
    panic!("{what}: not caught in {BUDGET} histories");
}

fn right() -> OpenStore {
    opening(|url| async { Cached::new(redis(url).await) })
}

fn defective(defect: Defect) -> OpenStore {
    opening(move |url| Defective::over(url, defect))
}

fn opening<S: HistoryStore + 'static, F: Future<Output = S> + Send + 'static>(
    open: impl Fn(String) -> F + Clone + Send + Sync + 'static,
) -> OpenStore {
    Arc::new(move |url| {
        let open = open.clone();
        Box::pin(async move { Arc::new(open(url).await) as Arc<dyn DynHistoryStore> })
    })
}
