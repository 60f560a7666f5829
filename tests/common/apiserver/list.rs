//! Owns reading: one object, and lists in pages.

use std::{ops::Bound, sync::Arc};

use serde_json::{Value, json};

use super::{
    failure::{Cause, Failure, Invalid},
    kinds::Resource,
    route::Call,
    selector::Selector,
    store::{Key, Store},
};

/// What is listed or watched: a namespace or all, and what matches.
#[derive(Debug, Clone)]
pub struct Scope {
    pub namespace: Option<String>,
    pub selector: Selector,
}

impl Scope {
    /// # Errors
    ///
    /// A selector is malformed.
    pub fn of(call: &Call) -> Result<Self, Failure> {
        let labels = call.param("labelSelector").unwrap_or_default();
        let fields = call.param("fieldSelector").unwrap_or_default();
        Ok(Self {
            namespace: call.namespace.clone(),
            selector: Selector::parse(labels, fields, &call.resource)?,
        })
    }

    pub fn holds(&self, key: &Key, object: &Value) -> bool {
        let here = self
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == key.namespace);
        here && self.selector.matches(object)
    }
}

/// A list before it is written out.
pub struct Page {
    pub items: Vec<Arc<Value>>,
    pub metadata: Value,
}

impl Page {
    /// A list in one page.
    pub fn whole(
        resource: &Resource,
        items: impl Iterator<Item = Arc<Value>>,
        revision: u64,
    ) -> Self {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if resource.custom.is_some() {
            metadata["continue"] = "".into();
        }
        Self {
            items: items.collect(),
            metadata,
        }
    }
}

/// Reads one object.
///
/// # Errors
///
/// It is not there, or not in the version asked for.
pub fn get(store: &Store, call: &Call) -> Result<Arc<Value>, Failure> {
    let key = call.key();
    let asked = call.revision("resourceVersion")?.unwrap_or(0);
    if asked > store.revision() {
        return Err(Failure::too_large_version(asked, store.revision()));
    }
    let found = store.get(&call.resource.table(), &key);
    found
        .cloned()
        .ok_or_else(|| Failure::not_found(&call.resource, &key.name))
}

/// Reads a list, or one page of it.
///
/// # Errors
///
/// A parameter is wrong, or a version forgotten or not there yet.
pub fn list(store: &Store, call: &Call) -> Result<Page, Failure> {
    check_options(call)?;
    let scope = Scope::of(call)?;
    let table = call.resource.table();
    let token = call.param("continue").map(Token::parse).transpose()?;
    let revision = match &token {
        Some(_)
            if call
                .revision("resourceVersion")?
                .is_some_and(|version| version != 0) =>
        {
            let text = "specifying resource version is not allowed when using continue";
            return Err(Failure::bad_request(text));
        }
        Some(token) => token.revision,
        None => requested(store, call)?,
    };
    let objects = store.table_at(&table, revision).map_err(|_| {
        let first = Key {
            namespace: String::new(),
            name: String::new(),
        };
        let start = token.as_ref().map_or(first, |token| token.start.clone());
        let again = Token {
            revision: store.revision(),
            start,
        };
        Failure::expired_page(&again.text())
    })?;
    let start = match token {
        Some(token) => Bound::Excluded(token.start),
        None => Bound::Unbounded,
    };
    let after = objects.range((start, Bound::Unbounded));
    let matching: Vec<_> = after
        .filter(|(key, object)| scope.holds(key, object))
        .collect();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if call.resource.custom.is_some() {
        metadata["continue"] = "".into();
    }
    let limit = limit(call)?;
    let end = matching.len().min(limit);
    if matching.len() > limit {
        let start = matching[end - 1].0.clone();
        metadata["continue"] = Token { revision, start }.text().into();
        if call.param("labelSelector").is_none() && call.param("fieldSelector").is_none() {
            metadata["remainingItemCount"] = (matching.len() - end).into();
        }
    }
    let items = matching[..end].iter().map(|(_, object)| Arc::clone(object));
    Ok(Page {
        items: items.collect(),
        metadata,
    })
}

/// The version that a list without a page token is of.
fn requested(store: &Store, call: &Call) -> Result<u64, Failure> {
    let asked = call.revision("resourceVersion")?.unwrap_or(0);
    if asked > store.revision() {
        return Err(Failure::too_large_version(asked, store.revision()));
    }
    if call.param("resourceVersionMatch") == Some("Exact") {
        let text = "The resourceVersion for the provided list is too old.";
        let gone = |_| Failure::new(410, "Expired", text, Value::Null);
        store.remembers(asked).map_err(gone)?;
        return Ok(asked);
    }
    Ok(store.revision())
}

/// Checks what depends on several parameters of a list or watch.
///
/// # Errors
///
/// They do not go together.
pub fn check_options(call: &Call) -> Result<(), Failure> {
    let matching = call.param("resourceVersionMatch");
    let cause = if call.flag("sendInitialEvents") {
        if !call.flag("watch") {
            Some((
                "sendInitialEvents",
                "Forbidden: sendInitialEvents is forbidden for list",
            ))
        } else if matching != Some("NotOlderThan") {
            Some((
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ))
        } else {
            None
        }
    } else if matching.is_some() && call.flag("watch") {
        Some((
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ))
    } else if matching.is_some() && call.param("resourceVersion").is_none() {
        Some((
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ))
    } else {
        None
    };
    match cause {
        None => Ok(()),
        Some((field, message)) => {
            let who = Invalid {
                group: "meta.k8s.io",
                kind: "ListOptions",
                name: "",
            };
            let cause = Cause::new("FieldValueForbidden", field, message);
            Err(Failure::invalid(&who, &[cause]))
        }
    }
}

/// How many objects a page has.
fn limit(call: &Call) -> Result<usize, Failure> {
    let text = call.param("limit").unwrap_or("0");
    let limit = text.parse().map_err(|_| {
        let error = format!("strconv.ParseInt: parsing \"{text}\": invalid syntax");
        Failure::bad_request(error)
    })?;
    Ok(if limit == 0 { usize::MAX } else { limit })
}

/// Where the next page starts: after this object, in that version.
struct Token {
    revision: u64,
    start: Key,
}

impl Token {
    fn text(&self) -> String {
        format!(
            "{}~{}~{}",
            self.revision, self.start.namespace, self.start.name
        )
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = text.split('~');
        let mut part = || parts.next().map(str::to_owned);
        let parsed = part()
            .zip(part())
            .zip(part())
            .and_then(|((revision, namespace), name)| {
                Some(Self {
                    revision: revision.parse().ok()?,
                    start: Key { namespace, name },
                })
            });
        parsed.ok_or_else(|| {
            let message = "invalid continue token: continue key is not valid: \
                invalid character 'i' looking for beginning of value";
            Failure::bad_request(message)
        })
    }
}
