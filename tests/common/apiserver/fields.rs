//! Owns sets of field paths, and how objects are compared, merged and cut by them: the model of
//! server-side apply, with the list and map types of the schema.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What is known of the types below a place in an object.
#[derive(Clone, Copy)]
pub enum Type<'a> {
    /// A custom resource; its metadata is as everybody's.
    Root(&'a Value),
    Schema(&'a Value),
    /// A built-in kind, whose special lists and maps are known by name.
    BuiltIn(&'a str),
}

/// How a value is made of others.
enum Shape {
    /// Replaced as a whole.
    Leaf,
    Map,
    /// A list of distinct scalars.
    Set,
    /// A list of objects told apart by these fields.
    Keyed(Vec<String>),
}

impl<'a> Type<'a> {
    fn field(self, name: &'a str) -> Self {
        match self {
            Self::Root(_) if name == "metadata" => Self::BuiltIn(name),
            Self::Root(schema) | Self::Schema(schema) => {
                let property = schema["properties"].get(name);
                Self::Schema(property.unwrap_or(&schema["additionalProperties"]))
            }
            Self::BuiltIn(_) => Self::BuiltIn(name),
        }
    }

    fn item(self) -> Self {
        match self {
            Self::Root(schema) | Self::Schema(schema) => Self::Schema(&schema["items"]),
            Self::BuiltIn(_) => Self::BuiltIn(""),
        }
    }

    fn shape(self, value: &Value) -> Shape {
        match (value, self) {
            (Value::Object(_), Self::BuiltIn("involvedObject" | "selector" | "fieldRef")) => {
                Shape::Leaf
            }
            (Value::Object(_), Self::Schema(schema))
                if schema["x-kubernetes-map-type"] == "atomic" =>
            {
                Shape::Leaf
            }
            (Value::Object(_), _) => Shape::Map,
            (Value::Array(_), Self::BuiltIn(name)) => match name {
                "finalizers" => Shape::Set,
                "ownerReferences" => Shape::Keyed(vec!["uid".to_owned()]),
                "conditions" => Shape::Keyed(vec!["type".to_owned()]),
                "containers" | "initContainers" | "volumes" | "env" => {
                    Shape::Keyed(vec!["name".to_owned()])
                }
                _ => Shape::Leaf,
            },
            (Value::Array(_), Self::Root(schema) | Self::Schema(schema)) => {
                match schema["x-kubernetes-list-type"].as_str() {
                    Some("set") => Shape::Set,
                    Some("map") => {
                        let keys = schema["x-kubernetes-list-map-keys"].as_array();
                        let keys = keys.into_iter().flatten().filter_map(Value::as_str);
                        Shape::Keyed(keys.map(str::to_owned).collect())
                    }
                    _ => Shape::Leaf,
                }
            }
            _ => Shape::Leaf,
        }
    }

    /// The parts of a value, each with its path element as in `FieldsV1`; none for a leaf.
    fn parts(self, value: &'a Value) -> Option<Vec<(String, Type<'a>, &'a Value)>> {
        let items = || value.as_array().into_iter().flatten();
        match self.shape(value) {
            Shape::Leaf => None,
            Shape::Map => {
                let fields = value.as_object().into_iter().flatten();
                let part = |(name, value): (&'a String, &'a Value)| {
                    (format!("f:{name}"), self.field(name), value)
                };
                Some(fields.map(part).collect())
            }
            Shape::Set => Some(
                items()
                    .map(|item| (format!("v:{item}"), self.item(), item))
                    .collect(),
            ),
            Shape::Keyed(keys) => {
                let part = |item: &'a Value| {
                    let key: Map<String, Value> = keys
                        .iter()
                        .map(|key| (key.clone(), item[key].clone()))
                        .collect();
                    (format!("k:{}", Value::Object(key)), self.item(), item)
                };
                Some(items().map(part).collect())
            }
        }
    }
}

/// A set of field paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(BTreeMap<String, Node>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Node {
    /// Whether this path itself is in the set.
    member: bool,
    below: Fields,
}

impl Fields {
    /// The fields that an applied configuration lays claim to.
    pub fn applied(kind: Type<'_>, value: &Value) -> Self {
        Self::collect(kind, value, false)
    }

    /// All fields, what holds others included.
    fn all(kind: Type<'_>, value: &Value) -> Self {
        Self::collect(kind, value, true)
    }

    fn collect(kind: Type<'_>, value: &Value, holders: bool) -> Self {
        let parts = kind.parts(value).unwrap_or_default();
        let nodes = parts.into_iter().map(|(element, kind, value)| {
            let below = Self::collect(kind, value, holders);
            let member = holders || below.is_empty() || element.starts_with("k:");
            (element, Node { member, below })
        });
        Self(nodes.collect())
    }

    /// What is new or different in `new`, and what is no longer there.
    pub fn compare(kind: Type<'_>, old: &Value, new: &Value) -> (Self, Self) {
        let (mut changed, mut removed) = (Self::default(), Self::default());
        let before = kind.parts(old).unwrap_or_default();
        let after = kind.parts(new).unwrap_or_default();
        let whole = |kind: Type<'_>, value: &Value| Node {
            member: true,
            below: Self::all(kind, value),
        };
        for (element, kind, value) in &after {
            let Some((.., was)) = before.iter().find(|(other, ..)| other == element) else {
                changed.0.insert(element.clone(), whole(*kind, value));
                continue;
            };
            if was == value {
                continue;
            }
            if kind.parts(was).is_none() || kind.parts(value).is_none() {
                changed.0.insert(element.clone(), whole(*kind, value));
                continue;
            }
            let (below, gone) = Self::compare(*kind, was, value);
            for (set, below) in [(&mut changed, below), (&mut removed, gone)] {
                if !below.is_empty() {
                    let member = false;
                    set.0.insert(element.clone(), Node { member, below });
                }
            }
        }
        for (element, kind, value) in before {
            if !after.iter().any(|(other, ..)| *other == element) {
                removed.0.insert(element, whole(kind, value));
            }
        }
        (changed, removed)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        for (element, node) in &other.0 {
            let mine = self.0.entry(element.clone()).or_default();
            mine.member |= node.member;
            mine.below = std::mem::take(&mut mine.below).union(&node.below);
        }
        self
    }

    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.filter(other, |mine, theirs| mine && !theirs)
    }

    /// With what holds others as a member, too: who says what is in a map says that there is one.
    #[must_use]
    pub fn with_holders(mut self) -> Self {
        for node in self.0.values_mut() {
            node.member = true;
            node.below = std::mem::take(&mut node.below).with_holders();
        }
        self
    }

    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        self.filter(other, |mine, theirs| mine && theirs)
    }

    fn filter(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let none = Node::default();
        let nodes = self.0.iter().filter_map(|(element, mine)| {
            let theirs = other.0.get(element).unwrap_or(&none);
            let member = keep(mine.member, theirs.member);
            let below = mine.below.filter(&theirs.below, keep);
            let stays = member || !below.is_empty();
            stays.then(|| (element.clone(), Node { member, below }))
        });
        Self(nodes.collect())
    }

    /// Without a field of the root or of the field `parent` in it.
    pub fn forget(&mut self, parent: Option<&str>, field: &str) {
        let element = format!("f:{field}");
        let Some(parent) = parent else {
            self.0.remove(&element);
            return;
        };
        let parent = format!("f:{parent}");
        if let Some(node) = self.0.get_mut(&parent) {
            node.member = false;
            node.below.0.remove(&element);
            if node.below.is_empty() {
                self.0.remove(&parent);
            }
        }
    }

    /// The members, as conflicts print them: `.spec.list[k="1"].v`; at each level they come first.
    pub fn paths(&self) -> Vec<String> {
        let (mut paths, mut below) = (Vec::new(), Vec::new());
        for (element, node) in &self.0 {
            let name = match element.split_at(2) {
                ("f:", name) => format!(".{name}"),
                ("k:", key) => {
                    let key: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
                    let fields = key.iter().map(|(name, value)| format!("{name}={value}"));
                    format!("[{}]", fields.collect::<Vec<_>>().join(","))
                }
                (_, value) => format!("[={value}]"),
            };
            if node.member {
                paths.push(name.clone());
            }
            let inner = node.below.paths();
            below.extend(inner.into_iter().map(|path| format!("{name}{path}")));
        }
        paths.append(&mut below);
        paths
    }

    pub fn to_json(&self) -> Value {
        let nodes = self.0.iter().map(|(element, node)| {
            let mut below = node.below.to_json();
            if node.member && !node.below.is_empty() {
                below["."] = json!({});
            }
            (element.clone(), below)
        });
        Value::Object(nodes.collect())
    }

    pub fn from_json(json: &Value) -> Self {
        let fields = json.as_object().into_iter().flatten();
        let nodes = fields
            .filter(|(element, _)| *element != ".")
            .map(|(element, below)| {
                let member =
                    below.get(".").is_some() || below.as_object().is_none_or(Map::is_empty);
                let below = Self::from_json(below);
                (element.clone(), Node { member, below })
            });
        Self(nodes.collect())
    }

    /// Takes these fields out of a value, and what becomes empty by that.
    pub fn cut(&self, kind: Type<'_>, value: &Value) -> Value {
        let kept = |element: &str, kind: Type<'_>, value: &Value| match self.0.get(element) {
            None => Some(value.clone()),
            Some(node) if node.member => None,
            Some(node) => {
                let left = node.below.cut(kind, value);
                let empty = matches!(&left, Value::Object(fields) if fields.is_empty())
                    || matches!(&left, Value::Array(items) if items.is_empty());
                (!empty).then_some(left)
            }
        };
        let Some(parts) = kind.parts(value) else {
            return value.clone();
        };
        let left = parts.into_iter().filter_map(|(element, kind, value)| {
            kept(&element, kind, value).map(|value| (element, value))
        });
        if value.is_array() {
            return left.map(|(_, value)| value).collect();
        }
        let name = |element: String| element.trim_start_matches("f:").to_owned();
        Value::Object(
            left.map(|(element, value)| (name(element), value))
                .collect(),
        )
    }
}

/// `live` with what `applied` says; lists keep the order of both where they can.
pub fn merge(kind: Type<'_>, live: &Value, applied: &Value) -> Value {
    let (Some(mine), Some(theirs)) = (kind.parts(live), kind.parts(applied)) else {
        return applied.clone();
    };
    let with_live = |element: &str, kind: Type<'_>, value: &Value| {
        let was = mine.iter().find(|(other, ..)| other == element);
        was.map_or_else(|| value.clone(), |(.., was)| merge(kind, was, value))
    };
    if let Value::Object(fields) = live {
        let mut merged = fields.clone();
        for (element, kind, value) in theirs {
            merged.insert(element[2..].to_owned(), with_live(&element, kind, value));
        }
        return Value::Object(merged);
    }
    let shared = |element: &str| theirs.iter().any(|(other, ..)| other == element);
    let mut merged = Vec::new();
    let mut rest = mine.iter().peekable();
    for (element, kind, value) in &theirs {
        while let Some((_, _, own)) = rest.next_if(|(own, ..)| !shared(own)) {
            merged.push((*own).clone());
        }
        merged.push(with_live(element, *kind, value));
        rest.next_if(|(own, ..)| own == element);
    }
    merged.extend(
        rest.filter(|(own, ..)| !shared(own))
            .map(|(.., own)| (*own).clone()),
    );
    Value::Array(merged)
}
