//! Why a command failed, and whose fault it is.

use serde::{Deserialize, Serialize};

/// Why a command failed: one line, and what to do about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// One line that says what is wrong.
    pub message: String,
    /// What to do next, if that is known.
    pub advice: Option<String>,
}

impl Failure {
    /// A failure with one line that says what is wrong.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), advice: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn try_to(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Whose fault a failure is. Each has its own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command was not understood or asks for what is not there (exit code 2).
    Usage,
    /// The peer or the network (exit code 3).
    Network,
    /// This machine: disk, permissions, files (exit code 4).
    Local,
    /// It was interrupted (exit code 130).
    Interrupted,
}

impl FailureKind {
    /// The exit code of a command that failed in this way.
    pub const fn exit_code(self) -> u8 {
        match self {
            FailureKind::Usage => 2,
            FailureKind::Network => 3,
            FailureKind::Local => 4,
            FailureKind::Interrupted => 130,
        }
    }
}
