//! Owns the watch of one Secret with SecureOn passwords: what it says is in force as soon as it is
//! known.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret as Object;
use kube::{
    Api,
    runtime::watcher::{Config, Event},
};
use tokio::sync::watch::Sender;

use super::{
    Watch, Watched,
    contact::{Contact, now},
    follow::{News, follow},
};
use crate::manager::{
    directory::Directory,
    passwords::{Keys, Secret},
};

/// Keys named in a log line at most.
const MAX_NAMED: usize = 8;

impl Watch {
    /// Keeps the directory's passwords of this Secret up to date.
    ///
    /// # Errors
    ///
    /// None: it ends when the token is cancelled, and not before.
    pub async fn secure_on(self, namespace: Arc<str>, name: Arc<str>) -> anyhow::Result<()> {
        let mut marks = self.marks("passwords");
        // Of its own: a Secret that cannot be read makes no config out of date. What was read of it
        // serves on, for as long as the configs do that name it.
        marks.contact = Contact::new(now());
        // What RBAC asks for where a right is limited to one name.
        let scope = Config::default().fields(&format!("metadata.name={name}"));
        let mut secret = Watching {
            name,
            directory: self.directory,
            changed: self.passwords,
            listed: None,
        };
        let what = Watched::Secrets;
        let client = marks.contact.noted_by(self.client, what);
        let api = Api::<Object>::namespaced(client, &namespace);
        let watch = follow(api, scope, what, &marks, |news| secret.take(news));
        self.token.run_until_cancelled(watch).await;
        Ok(())
    }
}

/// Brings what a Secret says to the directory, and tells that it changed.
struct Watching {
    name: Arc<str>,
    directory: Arc<Directory>,
    changed: Sender<()>,
    /// It as it is in the list under way.
    listed: Option<Object>,
}

impl Watching {
    fn take(&mut self, news: News<Object>) {
        match news {
            News::Event(Event::Init) => self.listed = None,
            News::Event(Event::InitApply(secret)) => self.listed = Some(secret),
            News::Event(Event::InitDone) => {
                let secret = self.listed.take();
                self.put(secret.as_ref());
            }
            News::Event(Event::Apply(secret)) => self.put(Some(&secret)),
            News::Absent | News::Event(Event::Delete(_)) => self.put(None),
        }
    }

    fn put(&self, secret: Option<&Object>) {
        let name = &*self.name;
        let secret = if let Some(secret) = secret {
            let data = secret.data.iter().flatten();
            let keys = Keys::read(data.map(|(key, value)| (key.as_str(), &*value.0)));
            let passwords = keys.count();
            tracing::info!(secret = name, passwords, "took in the SecureOn passwords");
            let unusable = keys.unusable();
            if !unusable.is_empty() {
                let count = unusable.len();
                let keys: Vec<&String> = unusable.iter().take(MAX_NAMED).collect();
                tracing::warn!(
                    secret = name,
                    count,
                    ?keys,
                    "keys of a SecureOn Secret open nothing: their names are not namespace.vm or \
                     default, or their values no passwords of four or six bytes"
                );
            }
            Secret::Read(Arc::new(keys))
        } else {
            tracing::info!(secret = name, "there is no such SecureOn Secret");
            Secret::Missing
        };
        self.directory.set_secret(name, secret);
        self.changed.send_replace(());
    }
}
