//! Owns [`Changes`]: the news of the VMs that are being started or booting, on their way from the
//! watch to the waker. None is lost, and of several about one VM the newest counts.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::manager::{vm::Vm, watch::Observer};

/// What is new: the VM as it is now, or none where it was deleted.
type News = HashMap<Arc<str>, Option<Arc<Vm>>>;

/// Bounded by the number of open intents and boots: only what is followed is kept.
#[derive(Debug, Default)]
pub struct Changes {
    inner: Mutex<Inner>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    followed: HashSet<Arc<str>>,
    news: News,
}

impl Changes {
    /// Keeps the news of this VM from now on.
    pub fn follow(&self, uid: &Arc<str>) {
        self.inner().followed.insert(uid.clone());
    }

    /// Drops the news of this VM.
    pub fn unfollow(&self, uid: &str) {
        let mut inner = self.inner();
        inner.followed.remove(uid);
        inner.news.remove(uid);
    }

    /// Waits until there are news.
    pub async fn some(&self) {
        self.news.notified().await;
    }

    /// Takes all news, by uid.
    pub fn take(&self) -> News {
        std::mem::take(&mut self.inner().news)
    }

    fn tell(&self, uid: &Arc<str>, vm: Option<&Arc<Vm>>) {
        let mut inner = self.inner();
        if inner.followed.contains(uid) {
            inner.news.insert(uid.clone(), vm.cloned());
            drop(inner);
            self.news.notify_one();
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Changes {
    fn changed(&self, _before: Option<&Arc<Vm>>, vm: &Arc<Vm>) {
        self.tell(&vm.uid, Some(vm));
    }

    fn deleted(&self, vm: &Arc<Vm>) {
        self.tell(&vm.uid, None);
    }
}
