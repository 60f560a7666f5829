//! A directory as a kubelet mounts it: its files are replaced all at once, by one symbolic link.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// Gone when dropped.
pub struct Volume {
    directory: tempfile::TempDir,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    content: BTreeMap<&'static str, String>,
    /// How often they were replaced.
    written: u64,
}

impl Volume {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory can be made"),
            files: Mutex::default(),
        }
    }

    /// Where a file is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Gives a file new content, or takes it away. What is so already is left alone.
    pub fn set(&self, name: &'static str, content: Option<&str>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.content.get(name).map(String::as_str) == content {
            return;
        }
        match content {
            Some(content) => files.content.insert(name, content.to_owned()),
            None => files.content.remove(name),
        };
        files.written += 1;
        self.write(&files);
        if content.is_none() {
            fs::remove_file(self.path(name)).expect("the link can be removed");
        }
    }

    fn write(&self, files: &Files) {
        let version = |number: u64| format!("..{number}");
        let new = self.path(&version(files.written));
        fs::create_dir(&new).expect("the directory can be written");
        for (name, content) in &files.content {
            fs::write(new.join(name), content).expect("the directory can be written");
        }
        let (data, next) = (self.path("..data"), self.path("..data_tmp"));
        symlink(version(files.written), &next).expect("a link can be made");
        fs::rename(next, data).expect("a link can be replaced");
        for name in files.content.keys() {
            let link = self.path(name);
            if link.symlink_metadata().is_err() {
                symlink(format!("..data/{name}"), link).expect("a link can be made");
            }
        }
        // There is none before the first.
        let _ = fs::remove_dir_all(self.path(&version(files.written - 1)));
    }
}
