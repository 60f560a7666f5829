//! Owns what steps may refer to of a server's earlier answers, which differ from server to server:
//! `<uid>`, `<version>` and `<continue>` are those of the last object or list that it answered
//! with, `<token>` is the last token,
//! `<before>` is the version that it told before that one.

use serde_json::Value;

use super::requests::Step;

/// What one server last said.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    uid: String,
    version: String,
    before: String,
    next: String,
    token: String,
}

impl Memory {
    /// The step as it is sent.
    pub(crate) fn fill(&self, step: &Step) -> Step {
        if !step.recalls {
            return step.clone();
        }
        let fill = |text: &str| {
            text.replace("<uid>", &self.uid)
                .replace("<version>", &self.version)
                .replace("<before>", &self.before)
                .replace("<continue>", &self.next)
                .replace("<token>", &self.token)
        };
        Step {
            path: fill(&step.path),
            body: fill(&step.body),
            ..step.clone()
        }
    }

    /// Takes in an answer. Refusals and streams change nothing.
    pub(crate) fn note(&mut self, body: &str) {
        let Ok(answer) = serde_json::from_str::<Value>(body) else {
            return;
        };
        if let Some(token) = answer["status"]["token"].as_str() {
            token.clone_into(&mut self.token);
        }
        let text = |field: &str| answer["metadata"][field].as_str().filter(|t| !t.is_empty());
        if let Some(uid) = text("uid") {
            uid.clone_into(&mut self.uid);
        }
        if let Some(next) = text("continue") {
            next.clone_into(&mut self.next);
        }
        if let Some(version) = text("resourceVersion").filter(|version| *version != self.version) {
            self.before = std::mem::replace(&mut self.version, version.to_owned());
        }
    }
}
