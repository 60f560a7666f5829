//! Owns the objects, their versions and the history from which watches read.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};

use super::{
    clock,
    kinds::{self, CRDS, Definition, NAMESPACES},
    managed,
};

/// How many changes are remembered unless told otherwise.
const HISTORY: usize = 100_000;

/// Which object in a table. Cluster-wide objects have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

/// All objects of one resource.
pub type Table = BTreeMap<Key, Arc<Value>>;

/// One write. A creation has no `before`, a deletion no `after`.
#[derive(Debug, Clone)]
pub struct Change {
    pub revision: u64,
    pub table: Arc<str>,
    pub key: Key,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
}

/// A version that is no longer, or not yet, known.
#[derive(Debug, Clone, Copy)]
pub struct Forgotten {
    /// The oldest version from which a watch can start.
    pub oldest: u64,
}

/// The whole state of the API. Tables are named `<plural>.<group>`.
pub struct Store {
    revision: u64,
    tables: HashMap<Arc<str>, Table>,
    history: VecDeque<Change>,
    /// The oldest version from which one can start to read.
    forgotten: u64,
    /// The last change that is gone from the history.
    lost: u64,
    capacity: usize,
    definitions: BTreeMap<String, Arc<Definition>>,
}

impl Store {
    pub fn new() -> Self {
        Self {
            revision: 1,
            tables: HashMap::new(),
            history: VecDeque::new(),
            forgotten: 0,
            lost: 0,
            capacity: HISTORY,
            definitions: BTreeMap::new(),
        }
    }

    /// With the namespaces that the server makes itself.
    pub fn with_namespaces() -> Self {
        let mut store = Self::new();
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let key = Key {
                namespace: String::new(),
                name: name.to_owned(),
            };
            store.put(NAMESPACES, &key, namespace(name));
        }
        store
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The CRDs that are there, by name.
    pub fn definitions(&self) -> &BTreeMap<String, Arc<Definition>> {
        &self.definitions
    }

    pub fn get(&self, table: &str, key: &Key) -> Option<&Arc<Value>> {
        self.tables.get(table)?.get(key)
    }

    pub fn table(&self, table: &str) -> Table {
        self.tables.get(table).cloned().unwrap_or_default()
    }

    /// The table as it was at `revision`.
    ///
    /// # Errors
    ///
    /// That was too long ago.
    pub fn table_at(&self, table: &str, revision: u64) -> Result<Cow<'_, Table>, Forgotten> {
        self.remembers(revision)?;
        let later = self.history.iter().rev();
        let later = later.take_while(|change| change.revision > revision);
        let mut later = later.filter(|change| *change.table == *table).peekable();
        let now = self.tables.get(table);
        if later.peek().is_none() {
            return Ok(now.map_or_else(Cow::default, Cow::Borrowed));
        }
        let mut objects = now.cloned().unwrap_or_default();
        for change in later {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(Cow::Owned(objects))
    }

    /// The changes of a table after `revision`, oldest first, for one who has read all before.
    ///
    /// # Errors
    ///
    /// The reader was too slow.
    pub fn since(&self, table: &str, revision: u64) -> Result<Vec<Change>, Forgotten> {
        if revision < self.lost {
            return Err(Forgotten { oldest: self.lost });
        }
        let from = self
            .history
            .partition_point(|change| change.revision <= revision);
        let changes = self.history.range(from..);
        Ok(changes
            .filter(|change| *change.table == *table)
            .cloned()
            .collect())
    }

    /// Whether one can start to read at `revision`.
    ///
    /// # Errors
    ///
    /// That was too long ago.
    pub fn remembers(&self, revision: u64) -> Result<(), Forgotten> {
        if revision < self.forgotten {
            return Err(Forgotten {
                oldest: self.forgotten,
            });
        }
        Ok(())
    }

    /// Stores an object and gives it its version.
    pub fn put(&mut self, table: &str, key: &Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        set_version(&mut object, self.revision);
        let after = Arc::new(object);
        let objects = self.tables.entry(table.into()).or_default();
        let before = objects.insert(key.clone(), after.clone());
        if table == CRDS {
            let definition = Definition::parse(&after);
            self.definitions
                .insert(key.name.clone(), Arc::new(definition));
        }
        self.remember(table, key, before, Some(after.clone()));
        after
    }

    /// Removes an object and returns it.
    pub fn remove(&mut self, table: &str, key: &Key) -> Option<Arc<Value>> {
        let before = self.tables.get_mut(table)?.remove(key)?;
        self.revision += 1;
        if table == CRDS {
            self.definitions.remove(&key.name);
        }
        self.remember(table, key, Some(before.clone()), None);
        Some(before)
    }

    /// Removes all that is in a namespace.
    pub fn remove_namespace(&mut self, namespace: &str) {
        let tables = self.tables.iter().flat_map(|(table, objects)| {
            let inside = objects.keys().filter(|key| key.namespace == namespace);
            inside.map(|key| (table.clone(), key.clone()))
        });
        let inside: Vec<_> = tables.collect();
        for (table, key) in inside {
            self.remove(&table, &key);
        }
    }

    fn remember(
        &mut self,
        table: &str,
        key: &Key,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
    ) {
        self.history.push_back(Change {
            revision: self.revision,
            table: table.into(),
            key: key.clone(),
            before,
            after,
        });
        self.shrink();
    }

    /// Sets how many changes are remembered.
    pub fn set_capacity(&mut self, changes: usize) {
        self.capacity = changes;
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.history.len() > self.capacity {
            if let Some(change) = self.history.pop_front() {
                self.lost = change.revision;
                self.forgotten = self.forgotten.max(change.revision);
            }
        }
    }

    /// Forgets all changes. Who starts to read at a version known by now is refused: the version
    /// moves on as if something unrelated had been written. Who is reading goes on.
    pub fn expire(&mut self) {
        self.revision += 1;
        if let Some(last) = self.history.back() {
            self.lost = last.revision;
        }
        self.history.clear();
        self.forgotten = self.revision;
    }
}

/// Writes a version into an object.
pub fn set_version(object: &mut Value, revision: u64) {
    object["metadata"]["resourceVersion"] = revision.to_string().into();
}

fn namespace(name: &str) -> Value {
    let blank = json!({
        "kind": "Namespace", "apiVersion": "v1", "metadata": {}, "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    });
    let mut namespace = json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {
            "name": name, "uid": clock::uid(), "creationTimestamp": clock::now(),
            "labels": {"kubernetes.io/metadata.name": name},
        },
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    });
    managed::by_server(&kinds::namespaces(), None, &blank, &mut namespace);
    namespace
}
