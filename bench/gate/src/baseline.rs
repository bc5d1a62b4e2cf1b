//! The figures that were agreed, the file they stand in, and what is worse than they.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Result;

/// How much worse a figure may be.
const TOLERANCE: f64 = 0.05;
/// How many looks at the clock may come or go with 1000 messages: the engine looks every 64 messages
/// or every 256, as quick as it finds the handler, and under valgrind nobody is quick for sure.
const LOOKS: f64 = 1000.0 / 64.0;
const LOOKS_AT_THE_CLOCK: &str = "looks at the clock per 1000 messages";

const HEADER: &str = "\
# What a message may cost, by case: `scripts/gate.sh` fails when one figure is more than 5 % worse.
# `scripts/gate.sh --update` writes this file; CONTRIBUTING.md says what goes into the commit.

";

/// Programs and what they say about their versions.
pub type Versions = BTreeMap<String, String>;

/// Figures of one kind, by case.
type Group = BTreeMap<String, f64>;

/// Everything that is measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// What the counts depend on beside the code.
    pub measured_with: Versions,
    /// Instructions of our side.
    pub instructions_per_message: Group,
    /// System calls of our side.
    pub system_calls_per_1000_messages: Group,
    /// Looks at the clock of our side.
    pub looks_at_the_clock_per_1000_messages: Group,
    /// Allocations at rest, by case and size.
    pub allocations_per_1000_messages: Group,
}

/// To as many digits as are written.
pub fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

impl Figures {
    fn path() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.toml")
    }

    /// The figures that were agreed.
    pub fn load() -> Result<Self> {
        let path = Self::path();
        let told = |error: &dyn fmt::Display| {
            let path = path.display();
            format!("{path}: {error}; `scripts/gate.sh --update` writes it anew")
        };
        let text = std::fs::read_to_string(&path).map_err(|error| told(&error))?;
        Ok(toml::from_str(&text).map_err(|error| told(&error))?)
    }

    /// Agrees on these figures.
    pub fn save(&self) -> Result<()> {
        let text = format!("{HEADER}{}", toml::to_string(self)?);
        Ok(std::fs::write(Self::path(), text)?)
    }

    fn groups(&self) -> [(&'static str, &Group); 4] {
        [
            ("instructions per message", &self.instructions_per_message),
            (
                "system calls per 1000 messages",
                &self.system_calls_per_1000_messages,
            ),
            (
                LOOKS_AT_THE_CLOCK,
                &self.looks_at_the_clock_per_1000_messages,
            ),
            (
                "allocations per 1000 messages",
                &self.allocations_per_1000_messages,
            ),
        ]
    }

    /// Compares these figures with those that were agreed.
    pub fn compare(&self, agreed: &Self) -> Vec<Comparison> {
        let mut all = Vec::new();
        for ((group, now), (_, agreed)) in self.groups().into_iter().zip(agreed.groups()) {
            let mut names: Vec<_> = now.keys().chain(agreed.keys()).collect();
            names.sort();
            names.dedup();
            all.extend(names.into_iter().map(|name| Comparison {
                group,
                name: name.clone(),
                agreed: agreed.get(name).copied(),
                now: now.get(name).copied(),
            }));
        }
        all
    }
}

/// One figure beside the one that was agreed.
#[derive(Debug)]
pub struct Comparison {
    /// What is counted.
    pub group: &'static str,
    name: String,
    agreed: Option<f64>,
    now: Option<f64>,
}

/// What a comparison says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As was agreed.
    Same,
    /// So much better that a change could spoil it again unnoticed.
    Better,
    /// Worse than may be.
    Worse,
    /// Not agreed on, or not measured any more.
    Unknown,
}

impl Comparison {
    /// Whether the figure is as was agreed.
    pub fn verdict(&self) -> Verdict {
        let slack = match self.group {
            LOOKS_AT_THE_CLOCK => LOOKS,
            _ => 0.0,
        };
        let more = |figure: f64| figure * (1.0 + TOLERANCE) + slack;
        let less = |figure: f64| figure * (1.0 - TOLERANCE) - slack;
        match (self.agreed, self.now) {
            (Some(agreed), Some(now)) if now > more(agreed) => Verdict::Worse,
            (Some(agreed), Some(now)) if now < less(agreed) => Verdict::Better,
            (Some(_), Some(_)) => Verdict::Same,
            _ => Verdict::Unknown,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or("-".into(), |n| format!("{n:.2}"));
        let (agreed, now) = (figure(self.agreed), figure(self.now));
        write!(f, "{:<24} {agreed:>9} {now:>9}", self.name)?;
        match (self.agreed, self.now) {
            (Some(agreed), Some(now)) if agreed > 0.0 => {
                write!(f, " {:>+7.1} %", (now / agreed - 1.0) * 100.0)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(agreed: Option<f64>, now: Option<f64>) -> Verdict {
        of("instructions per message", agreed, now)
    }

    fn of(group: &'static str, agreed: Option<f64>, now: Option<f64>) -> Verdict {
        let comparison = Comparison {
            group,
            name: "echo_server".into(),
            agreed,
            now,
        };
        comparison.verdict()
    }

    #[test]
    fn more_than_five_percent_are_told() {
        for (now, expected) in [
            (94.9, Verdict::Better),
            (95.0, Verdict::Same),
            (105.0, Verdict::Same),
            (105.1, Verdict::Worse),
        ] {
            assert_eq!(verdict(Some(100.0), Some(now)), expected, "{now}");
        }
    }

    #[test]
    fn looks_at_the_clock_may_be_as_many_as_a_slow_handler_has() {
        let looks = |agreed, now| of(LOOKS_AT_THE_CLOCK, Some(agreed), Some(now));
        assert_eq!(looks(1.0, 1.0 + LOOKS), Verdict::Same);
        assert_eq!(looks(1.0, 1.1 + LOOKS), Verdict::Worse);
        assert_eq!(looks(1.0 + LOOKS, 1.0), Verdict::Same);
    }

    #[test]
    fn nothing_may_be_more_than_none() {
        assert_eq!(verdict(Some(0.0), Some(0.0)), Verdict::Same);
        assert_eq!(verdict(Some(0.0), Some(0.01)), Verdict::Worse);
    }

    #[test]
    fn a_figure_that_only_one_side_has_is_told() {
        assert_eq!(verdict(None, Some(1.0)), Verdict::Unknown);
        assert_eq!(verdict(Some(1.0), None), Verdict::Unknown);
    }

    #[test]
    fn the_file_has_every_case_and_what_is_written_is_read() {
        let agreed = Figures::load().unwrap();
        for case in crate::cases::Case::ALL {
            let known = agreed.instructions_per_message.contains_key(case.name);
            assert!(known, "{}", case.name);
        }
        let text = toml::to_string(&agreed).unwrap();
        assert_eq!(toml::from_str::<Figures>(&text).unwrap(), agreed);
        assert!(
            agreed
                .compare(&agreed)
                .iter()
                .all(|comparison| comparison.verdict() == Verdict::Same)
        );
    }
}
