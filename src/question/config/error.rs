//! What is wrong with a configuration, and where.

use std::fmt;

use crate::question::plan::Location;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands; line 0 when it is about the file as a whole.
    pub location: Location,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// A configuration that cannot be used, with every problem found in it, a line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Most problems that are kept; a hostile file could otherwise cause millions of them.
    pub(crate) const MAX_PROBLEMS: usize = 20;

    /// An error about a single problem.
    pub(crate) fn single(location: Location, message: impl Into<String>) -> ConfigError {
        ConfigError { problems: vec![Problem { location, message: message.into() }] }
    }

    /// All that was found, in the order of finding; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        if self.problems.len() == ConfigError::MAX_PROBLEMS {
            write!(f, "\n(only the first {} problems are shown)", ConfigError::MAX_PROBLEMS)?;
        }
        Ok(())
    }
}

/// Collects problems, so that one look at a file shows all of them.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Notes a problem; beyond [`ConfigError::MAX_PROBLEMS`], and when the same was noted before, it is dropped.
    pub(crate) fn add(&mut self, location: Location, message: impl Into<String>) {
        if !self.is_full() {
            let problem = Problem { location, message: message.into() };
            if !self.0.contains(&problem) {
                self.0.push(problem);
            }
        }
    }

    /// Whether looking further would add nothing.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= ConfigError::MAX_PROBLEMS
    }

    /// Whether nothing was noted so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `value`, unless there were problems.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, ConfigError> {
        if self.0.is_empty() { Ok(value) } else { Err(ConfigError { problems: self.0 }) }
    }
}
