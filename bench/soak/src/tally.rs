//! What came of the questions: right answers, errors by kind, and what must not be.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use network_system::Error;

use crate::question::Question;

/// Counts for one of the loads.
pub struct Tally {
    pub name: &'static str,
    ok: AtomicU64,
    wrong: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            ok: AtomicU64::new(0),
            wrong: AtomicU64::new(0),
            errors: Mutex::default(),
        }
    }

    pub fn ok(&self) -> u64 {
        self.ok.load(Relaxed)
    }

    pub fn wrong(&self) -> u64 {
        self.wrong.load(Relaxed)
    }

    pub fn errors(&self) -> BTreeMap<String, u64> {
        let errors = self.errors.lock();
        errors.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn failed(&self) -> u64 {
        self.errors().values().sum()
    }

    /// What came of a question.
    pub fn result<M: AsRef<[u8]>>(&self, question: Question, result: Result<M, Error>) {
        match result {
            Ok(given) if question.is_answered_by(given.as_ref()) => self.right(),
            Ok(given) => {
                let bytes = given.as_ref().len();
                self.defect(&format!(
                    "{} got a wrong answer of {bytes} bytes",
                    question.0
                ));
            }
            Err(error) => self.error(&error),
        }
    }

    pub fn right(&self) {
        self.ok.fetch_add(1, Relaxed);
    }

    /// An error is allowed where the same call may succeed later: all that a killed server can do.
    pub fn error(&self, error: &Error) {
        if error.can_retry() {
            self.count(&format!("{:?}", error.kind()));
        } else {
            self.defect(&format!("{error:?}"));
        }
    }

    /// Our own deadline has passed.
    pub fn late(&self) {
        self.count("Deadline");
    }

    fn count(&self, kind: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        match errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(errors.insert(kind.to_owned(), 1)),
        }
    }

    /// What no kill explains.
    pub fn defect(&self, what: &str) {
        if self.wrong.fetch_add(1, Relaxed) < 10 {
            eprintln!("DEFECT {}: {what}", self.name);
        }
    }
}
