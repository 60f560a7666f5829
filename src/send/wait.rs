//! Owns `--wait`: follows virtual machines once the packets are sent, until they run or it is told
//! why one does not. It only looks: at the virtual machine, and at what the managers say of it in
//! Events.

use std::{
    collections::HashMap,
    fmt::Display,
    io::Write,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::runtime::{self, Runtime};

use super::{SendArgs, Target, lookup::Recipients, target::VM};
use crate::{
    UsageError,
    cluster::{Look, Place, Unseen},
    kubevirt::{VirtualMachine, VmKey},
};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Who writes the managers' Events, and what their reasons begin with.
const COMPONENT: &str = "kubevirt-wol";
const REASONS: &str = "WakeOnLan";
/// The reasons by which a wake ends without a start.
const ENDS: [&str; 2] = ["WakeOnLanRefused", "WakeOnLanExpired"];

/// What is followed, as it was before anything was sent.
pub(super) struct Wait {
    runtime: Runtime,
    look: Look,
    began: Instant,
    patience: Duration,
    vms: Vec<Followed>,
}

/// One virtual machine that is followed.
struct Followed {
    key: VmKey,
    /// The versions of the Events that were seen, none until they could be read; what else comes is new.
    seen: Option<HashMap<String, String>>,
    /// What the managers said last of it, be it before.
    last: Option<String>,
    /// What it looked like last, or why it could not be seen.
    state: String,
    end: Option<End>,
}

/// How the wait for one ended.
struct End {
    after: Duration,
    result: Result<String, String>,
}

/// Something that a manager said.
struct Word {
    uid: String,
    version: String,
    /// Whether this is the end of the wake. What another config or node makes of it is not.
    is_end: bool,
    message: String,
}

/// How long to wait; none without `--wait`.
///
/// # Errors
///
/// It is no time at all, or no virtual machine is named.
pub(super) fn patience(
    args: &SendArgs,
    targets: &[Target],
) -> Result<Option<Duration>, UsageError> {
    let Some(wait) = &args.wait else {
        return Ok(None);
    };
    if wait.is_none() && !targets.iter().any(|one| matches!(one, Target::Vm(_))) {
        return Err(UsageError::new(
            "nothing to wait for: name the virtual machine as the target, vm/NAMESPACE/NAME, or \
             write --wait=NAMESPACE/NAME",
        ));
    }
    let time = Duration::try_from(args.wait_timeout).unwrap_or_default();
    if time.is_zero() {
        return Err(UsageError::new(
            "--wait-timeout has to be more than nothing",
        ));
    }
    Ok(Some(time))
}

/// The virtual machines to wait for, each once.
pub(super) fn keys(args: &SendArgs, recipients: &Recipients) -> Vec<VmKey> {
    let sent_to = recipients.found.iter().filter_map(|one| one.vm.clone());
    let mut keys: Vec<VmKey> = Vec::new();
    for key in sent_to.chain(args.wait.clone().flatten()) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

impl Wait {
    /// Looks at what the managers have said so far. To be called before anything is sent.
    ///
    /// # Errors
    ///
    /// There is no cluster to look at.
    pub(super) fn begin(keys: Vec<VmKey>, patience: Duration) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the async runtime")?;
        let look = runtime.block_on(Look::new()).context("cannot wait")?;
        let mut vms: Vec<_> = keys.into_iter().map(Followed::new).collect();
        runtime.block_on(async {
            for vm in &mut vms {
                // What cannot be read now may be readable later; then none of that counts as new.
                let _ = vm.listen(&look).await;
            }
        });
        Ok(Self {
            runtime,
            look,
            began: Instant::now(),
            patience,
            vms,
        })
    }

    /// Waits, and tells `out`; whether all of them run.
    ///
    /// # Errors
    ///
    /// Nothing can be written.
    pub(super) fn finish(self, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
        let Self {
            runtime,
            look,
            began,
            patience,
            mut vms,
        } = self;
        while vms.iter().any(|vm| vm.end.is_none()) {
            let over = began.elapsed() >= patience;
            for vm in vms.iter_mut().filter(|vm| vm.end.is_none()) {
                let news = runtime.block_on(vm.look(&look, began));
                if over && vm.end.is_none() {
                    vm.give_up(patience);
                }
                if !json {
                    vm.tell(&news, out).context("cannot write what is told")?;
                }
            }
            let left = patience.saturating_sub(began.elapsed());
            if vms.iter().any(|vm| vm.end.is_none()) {
                std::thread::sleep(PAUSE.min(left));
            }
        }
        if json {
            let waited: Vec<_> = vms.iter().filter_map(Followed::json).collect();
            writeln!(out, "{}", json!({"waited": waited})).context("cannot write the report")?;
        }
        Ok(vms.iter().all(Followed::runs))
    }
}

impl Followed {
    fn new(key: VmKey) -> Self {
        Self {
            key,
            seen: None,
            last: None,
            state: "was not looked at".into(),
            end: None,
        }
    }

    fn runs(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.result.is_ok())
    }

    /// Looks once; tells what the managers said since the last time.
    async fn look(&mut self, look: &Look, began: Instant) -> Vec<String> {
        let words = self.listen(look).await;
        let place = Place {
            group: "kubevirt.io",
            version: "v1",
            plural: "virtualmachines",
            namespace: Some(&self.key.namespace),
        };
        let result = match look.get::<VirtualMachine>(&place, &self.key.name).await {
            Ok(vm) => self.judge(&vm),
            Err(Unseen::Failed(why)) => {
                self.state = format!("could not be looked at: {why}");
                None
            }
            Err(why) => Some(Err(why.to_string())),
        };
        let (words, trouble) = match words {
            Ok(words) => {
                let trouble = words.iter().find(|word| word.is_end);
                let trouble = trouble.map(|word| Err(word.message.clone()));
                (words, trouble)
            }
            Err(why) => {
                self.last
                    .get_or_insert_with(|| format!("(its Events: {why})"));
                (Vec::new(), None)
            }
        };
        // One that runs, runs, whatever was said.
        let after = began.elapsed();
        self.end = result.or(trouble).map(|result| End { after, result });
        let news = words.into_iter().filter(|word| !word.is_end);
        news.map(|word| word.message).collect()
    }

    /// Whether it runs; nothing as long as that may come.
    fn judge(&mut self, vm: &VirtualMachine) -> Option<Result<String, String>> {
        let status = vm.printable_status.as_deref().unwrap_or("of no status");
        self.state = format!("is {}", plain(status));
        match status {
            "Paused" => Some(Ok("is on, but paused".into())),
            "Running" | "Migrating" => Some(Ok("runs".into())),
            _ if vm.ready => Some(Ok("runs".into())),
            _ => None,
        }
    }

    /// Reads what the managers have said and was not read before.
    async fn listen(&mut self, look: &Look) -> Result<Vec<Word>, Unseen> {
        let place = Place {
            group: "",
            version: "v1",
            plural: "events",
            namespace: Some(&self.key.namespace),
        };
        let name = &self.key.name;
        let query = format!(
            "fieldSelector=involvedObject.kind%3DVirtualMachine%2CinvolvedObject.name%3D{name}"
        );
        let events = look.list::<Value>(&place, &query).await?;
        let mut news: Vec<Word> = events.iter().filter_map(Word::read).collect();
        let is_first = self.seen.is_none();
        let seen = self.seen.get_or_insert_default();
        news.retain(|word| seen.get(&word.uid) != Some(&word.version));
        for word in &news {
            seen.insert(word.uid.clone(), word.version.clone());
            self.last = Some(word.message.clone());
        }
        if is_first {
            news.clear();
        }
        Ok(news)
    }

    fn give_up(&mut self, patience: Duration) {
        let state = &self.state;
        let said = match &self.last {
            Some(word) => format!("the last that was said of it: {word}"),
            None => {
                "no manager has said anything of it; ask kubevirt-wol explain whether a packet \
                     would wake it, and kubevirt-wol agent --monitor on a node whether one is heard"
                    .into()
            }
        };
        self.end = Some(End {
            after: patience,
            result: Err(format!("{state} after {patience:?}; {said}")),
        });
    }

    fn tell(&self, news: &[String], out: &mut impl Write) -> std::io::Result<()> {
        let Self { key, .. } = self;
        let mut line = |word: &str, text: &dyn Display| {
            writeln!(out, "{word:<7} {VM}{}/{}: {text}", key.namespace, key.name)
        };
        for message in news {
            line("told", message)?;
        }
        match &self.end {
            None => out.flush(),
            Some(End { after, result }) => match result {
                Ok(text) => line(
                    "running",
                    &format!("{text}, {:.1} s after it was sent", after.as_secs_f64()),
                ),
                Err(why) => line("failed", why),
            },
        }
    }

    fn json(&self) -> Option<Value> {
        let End { after, result } = self.end.as_ref()?;
        let (VmKey { namespace, name }, said) = (&self.key, result.as_ref());
        Some(json!({
            "vm": format!("{namespace}/{name}"),
            "status": if result.is_ok() { "running" } else { "failed" },
            "reason": said.unwrap_or_else(|why| why),
            "afterMs": u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        }))
    }
}

impl Word {
    /// Reads an Event, if a manager wrote it.
    fn read(event: &Value) -> Option<Self> {
        let text = |at: &str| event.pointer(at).and_then(Value::as_str);
        let ours = text("/source/component") == Some(COMPONENT)
            && text("/reason").is_some_and(|reason| reason.starts_with(REASONS));
        ours.then(|| Self {
            uid: text("/metadata/uid").unwrap_or_default().into(),
            version: text("/metadata/resourceVersion").unwrap_or_default().into(),
            is_end: text("/reason").is_some_and(|reason| ENDS.contains(&reason)),
            message: plain(text("/message").unwrap_or_default()),
        })
    }
}

/// What was written by others, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(component: &str, reason: &str, message: &str) -> Option<Word> {
        Word::read(&json!({
            "metadata": {"uid": "1", "resourceVersion": "7"},
            "source": {"component": component},
            "type": "Warning",
            "reason": reason,
            "message": message,
        }))
    }

    #[test]
    fn only_a_start_that_is_refused_or_given_up_ends_the_wait() {
        for (reason, ends) in [
            ("WakeOnLanRefused", true),
            ("WakeOnLanExpired", true),
            ("WakeOnLanIgnored", false),
            ("WakeOnLanAmbiguous", false),
            ("WakeOnLanDeferred", false),
        ] {
            assert_eq!(
                word(COMPONENT, reason, "").unwrap().is_end,
                ends,
                "{reason}"
            );
        }
        assert!(word("kubelet", "WakeOnLanRefused", "").is_none());
    }

    #[test]
    fn what_an_event_says_moves_no_cursor() {
        let told = word(
            COMPONENT,
            "WakeOnLanIgnored",
            "no\u{1b}[2J\r\nwell: \u{9b}1m é",
        )
        .unwrap();
        assert_eq!(
            told.message,
            "no\u{fffd}[2J\u{fffd}\u{fffd}well: \u{fffd}1m é"
        );
    }
}
