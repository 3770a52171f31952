//! A store that breaks one rule of the contract on purpose, and the check of the suite that must notice.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use tower_session_memory::{
    history::Record,
    session::{Principal, SessionKey},
    store::{
        Appended, Cursor, Erased, HistoryStore, InMemoryStore, LoadOptions, Loaded, Page, PrincipalPage,
        PrincipalSummary, ReadOptions, RecordPage, Retention, Scope, SessionPage, StoreError,
    },
    testing::{
        ManualClock,
        conformance::{self, Harness, Options},
    },
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    None,
    ReadSkipsARecord,
    ReadIgnoresTheBytes,
    ReadEndsEarly,
    KeepsEverything,
    CutsInsideAnExchange,
    DropsALargeTurn,
    ListsNoModel,
    ListsNoBytes,
    ListsNoBeginning,
    ListsNoExpiry,
    PrincipalsFromTheOldest,
    PrincipalsThatAreGone,
    PrincipalsOfAllNamespaces,
    ErasesInOneStep,
    ErasesAnother,
    ErasesOnlyAStep,
    CountsNothing,
    LetsTheErasedReturn,
    ExpiresWhatIsYoung,
    ExpiresEverywhere,
    ExpiresInOneStep,
    ExpiresLikeADeletion,
    TakesAnyPage,
}

/// Each defect, and the check that is named after what it breaks.
const CAUGHT: &[(Defect, &str)] = &[
    (Defect::ReadSkipsARecord, "a_log_is_read_page_by_page_from_any_place"),
    (Defect::ReadIgnoresTheBytes, "a_page_is_bounded_in_bytes_and_holds_at_least_one_record"),
    (Defect::ReadEndsEarly, "a_log_is_read_page_by_page_from_any_place"),
    (Defect::KeepsEverything, "a_log_past_its_bytes_loses_its_oldest_turns"),
    (Defect::CutsInsideAnExchange, "half_a_tool_exchange_is_never_kept"),
    (Defect::DropsALargeTurn, "a_turn_that_is_larger_than_the_bound_is_kept_alone"),
    (Defect::ListsNoModel, "a_listing_describes_each_session"),
    (Defect::ListsNoBytes, "a_listing_describes_each_session"),
    (Defect::ListsNoBeginning, "a_listing_describes_each_session"),
    (Defect::ListsNoExpiry, "a_listing_describes_each_session"),
    (Defect::PrincipalsFromTheOldest, "principals_are_listed_from_the_most_recently_active_page_by_page"),
    (Defect::PrincipalsThatAreGone, "a_principal_without_sessions_is_not_listed"),
    (Defect::PrincipalsOfAllNamespaces, "principals_of_another_namespace_are_not_listed"),
    (Defect::ErasesInOneStep, "an_erasure_goes_in_bounded_steps"),
    (Defect::ErasesAnother, "a_principal_is_erased_whole_and_no_other"),
    (Defect::ErasesOnlyAStep, "an_erasure_goes_in_bounded_steps"),
    (Defect::CountsNothing, "a_principal_is_erased_whole_and_no_other"),
    (Defect::LetsTheErasedReturn, "what_was_erased_stays_erased"),
    (Defect::LetsTheErasedReturn, "an_erasure_that_is_dropped_on_the_way_harms_no_other_session"),
    (Defect::ExpiresWhatIsYoung, "old_sessions_are_erased_and_young_ones_stay"),
    (Defect::ExpiresEverywhere, "old_sessions_are_erased_and_young_ones_stay"),
    (Defect::ExpiresInOneStep, "an_expiry_by_age_goes_in_bounded_steps"),
    (Defect::ExpiresLikeADeletion, "a_session_that_was_erased_by_age_starts_a_new_log"),
    (Defect::TakesAnyPage, "a_step_that_no_step_named_is_an_error"),
    (Defect::TakesAnyPage, "a_page_of_principals_that_no_listing_named_is_an_error"),
];

#[test]
fn each_rule_that_is_broken_is_noticed() {
    for (defect, check) in CAUGHT {
        let passes = |defect| {
            let harness = Sabotaged { defect, clock: ManualClock::default() };
            catch_unwind(AssertUnwindSafe(|| conformance::run(check, &harness))).is_ok()
        };
        assert!(passes(Defect::None), "{check} fails without a defect");
        assert!(!passes(*defect), "{defect:?} passes {check}");
    }
}

struct Sabotaged {
    defect: Defect,
    clock: ManualClock,
}

impl Harness for Sabotaged {
    type Store = Defective;

    async fn store(&self, options: &Options) -> Defective {
        let clock = self.clock.clone();
        let kept = match self.defect {
            Defect::KeepsEverything | Defect::CutsInsideAnExchange => {
                options.retention.with_max_bytes(None).with_max_turns(None)
            }
            _ => options.retention,
        };
        let inner = InMemoryStore::new().with_clock(move || clock.now()).with_retention(kept);
        Defective { inner, defect: self.defect, retention: options.retention, seen: Arc::default() }
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }
}

struct Defective {
    inner: InMemoryStore,
    defect: Defect,
    retention: Retention,
    /// All principals that ever were, the newest last.
    seen: Arc<Mutex<Vec<(String, PrincipalSummary)>>>,
}

impl Defective {
    fn is(&self, defect: Defect) -> bool {
        self.defect == defect
    }

    /// The page, or the first where any is taken.
    fn page(&self, page: &Page) -> Page {
        let known =
            page.after.as_deref().is_none_or(|after| after == "further" || after.parse::<u64>().is_ok());
        if self.is(Defect::TakesAnyPage) && !known { Page::new(page.limit) } else { page.clone() }
    }
}

impl HistoryStore for Defective {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        let mut loaded = self.inner.load(key, options).await?;
        let records = loaded.records.len();
        if self.is(Defect::CutsInsideAnExchange) && records > 4 {
            loaded.records.to_mut().drain(..records - 4);
            loaded.trimmed += (records - 4) as u64;
        }
        let most = self.retention.max_bytes.unwrap_or(u64::MAX);
        if self.is(Defect::DropsALargeTurn) {
            loaded.records.to_mut().retain(|record| record.bytes().len() as u64 <= most);
        }
        Ok(loaded)
    }

    async fn read(&self, key: &SessionKey, options: &ReadOptions) -> Result<RecordPage, StoreError> {
        let mut options = *options;
        if self.is(Defect::ReadSkipsARecord) {
            options.from = options.from.saturating_add(1);
        }
        if self.is(Defect::ReadIgnoresTheBytes) {
            options.max_bytes = u64::MAX;
        }
        let mut page = self.inner.read(key, &options).await?;
        if self.is(Defect::ReadEndsEarly) {
            page.next = None;
        }
        Ok(page)
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, record: &Record) -> Result<Appended, StoreError> {
        let now = self.inner.load(key, None).await?;
        if self.is(Defect::ExpiresLikeADeletion) && now.cursor.count == 0 && at.count > 0 {
            return Ok(Appended::Gone);
        }
        let answer = self.inner.append(key, at, record).await?;
        if self.is(Defect::LetsTheErasedReturn) && answer == Appended::Gone {
            return self.inner.append(key, &now.cursor, record).await;
        }
        let listed = self.inner.sessions(&Scope::of(key), &Page::new(1)).await?.sessions;
        let Some(newest) = listed.first() else { return Ok(answer) };
        let summary = PrincipalSummary::new(key.principal().clone(), newest.updated_at);
        let mut seen = self.seen.lock().unwrap();
        seen.retain(|(_, seen)| seen.principal != summary.principal);
        seen.push((key.namespace().to_owned(), summary));
        Ok(answer)
    }

    async fn sessions(&self, scope: &Scope, page: &Page) -> Result<SessionPage, StoreError> {
        let mut listed = self.inner.sessions(scope, page).await?;
        for session in &mut listed.sessions {
            match self.defect {
                Defect::ListsNoModel => session.model = Some("another".to_owned()),
                Defect::ListsNoBytes => session.bytes = 0,
                Defect::ListsNoBeginning => session.created_at = session.updated_at,
                Defect::ListsNoExpiry => session.expires_at = None,
                _ => {}
            }
        }
        Ok(listed)
    }

    async fn principals(&self, namespace: &str, page: &Page) -> Result<PrincipalPage, StoreError> {
        let mut listed = self.inner.principals(namespace, &self.page(page)).await?;
        match self.defect {
            Defect::PrincipalsFromTheOldest => listed.principals.reverse(),
            Defect::PrincipalsThatAreGone | Defect::PrincipalsOfAllNamespaces => {
                let gone = self.is(Defect::PrincipalsThatAreGone);
                let seen = self.seen.lock().unwrap();
                let seen = seen.iter().rev().filter(|(of, _)| !gone || of == namespace);
                listed = PrincipalPage::default();
                listed.principals = seen.map(|(_, seen)| seen.clone()).take(page.limit).collect();
            }
            _ => {}
        }
        Ok(listed)
    }

    async fn delete_principal(&self, scope: &Scope, page: &Page) -> Result<Erased, StoreError> {
        let mut erased = self.inner.delete_principal(scope, &self.page(page)).await?;
        match self.defect {
            Defect::ErasesInOneStep => {
                while erased.next.is_some() {
                    let further = page.clone().with_after(erased.next);
                    let more = self.inner.delete_principal(scope, &further).await?;
                    erased.sessions += more.sessions;
                    erased.records += more.records;
                    erased.next = more.next;
                }
            }
            Defect::ErasesAnother => {
                let principal = Principal::new(format!("{}*", scope.principal.as_str()));
                let another = Scope { principal, ..scope.clone() };
                self.inner.delete_principal(&another, page).await?;
            }
            Defect::ErasesOnlyAStep => erased.next = None,
            Defect::CountsNothing => (erased.sessions, erased.records) = (0, 0),
            _ => {}
        }
        Ok(erased)
    }

    async fn expire(&self, namespace: &str, age: Duration, page: &Page) -> Result<Erased, StoreError> {
        let age = if self.is(Defect::ExpiresWhatIsYoung) { Duration::ZERO } else { age };
        let mut erased = self.inner.expire(namespace, age, &self.page(page)).await?;
        if self.is(Defect::ExpiresEverywhere) {
            self.inner.expire(&format!("{namespace}:"), age, page).await?;
        }
        while self.is(Defect::ExpiresInOneStep) && erased.next.is_some() {
            let further = page.clone().with_after(erased.next);
            let more = self.inner.expire(namespace, age, &further).await?;
            erased.sessions += more.sessions;
            erased.records += more.records;
            erased.next = more.next;
        }
        Ok(erased)
    }

    tower_session_memory::delegate_history_store!(|this| this.inner; delete, durability, name, close);
}
