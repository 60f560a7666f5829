//! Owns the record of who set which field, `metadata.managedFields`.

use serde_json::{Value, json};

use super::{
    admit, clock,
    fields::{Fields, Type},
    kinds::Resource,
    route::Call,
};

/// The media type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The fields of the metadata that nobody owns.
const UNOWNED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
];

/// One owner and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    pub api_version: String,
    pub time: String,
    pub subresource: Option<String>,
    pub fields: Fields,
}

impl Owner {
    /// Who makes this call, with no fields yet.
    pub fn of(call: &Call) -> Self {
        let apply = call.content_type() == APPLY;
        Self {
            manager: call.manager(),
            operation: if apply { "Apply" } else { "Update" }.to_owned(),
            api_version: call.resource.api_version(),
            time: clock::now(),
            subresource: call.subresource.clone(),
            fields: Fields::default(),
        }
    }

    pub fn is(&self, other: &Self) -> bool {
        let update = self.operation == "Update";
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (!update || self.api_version == other.api_version)
    }

    fn read(entry: &Value) -> Self {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            time: text("time"),
            subresource: entry["subresource"].as_str().map(str::to_owned),
            fields: Fields::from_json(&entry["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        if let Some(subresource) = &self.subresource {
            entry["subresource"] = subresource.as_str().into();
        }
        entry
    }
}

/// All owners of an object.
pub fn read(object: &Value) -> Vec<Owner> {
    let entries = object["metadata"]["managedFields"].as_array();
    let entries = entries.into_iter().flatten();
    entries
        .filter(|entry| entry["manager"].is_string())
        .map(Owner::read)
        .collect()
}

/// Writes the owners into an object, without those that own nothing.
pub fn write(object: &mut Value, mut owners: Vec<Owner>) {
    owners.retain(|owner| !owner.fields.is_empty());
    owners.sort_by(|a, b| {
        let key = |owner: &Owner| {
            let Owner {
                operation,
                time,
                manager,
                ..
            } = owner;
            (
                operation.clone(),
                time.clone(),
                manager.clone(),
                owner.subresource.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    if owners.is_empty() {
        if let Value::Object(metadata) = &mut object["metadata"] {
            metadata.remove("managedFields");
        }
        return;
    }
    let entries: Vec<Value> = owners.iter().map(Owner::write).collect();
    object["metadata"]["managedFields"] = entries.into();
}

/// What is known of the types of a resource's objects.
pub fn types(resource: &Resource) -> Type<'_> {
    match &resource.custom {
        Some(custom) => Type::Root(&custom.schema),
        None => Type::BuiltIn(""),
    }
}

/// Without what nobody owns, and what a write of this subresource cannot set.
pub fn ownable(call: &Call, mut fields: Fields) -> Fields {
    fields.forget(None, "apiVersion");
    fields.forget(None, "kind");
    for field in UNOWNED {
        fields.forget(Some("metadata"), field);
    }
    if call.resource.status && call.subresource.is_none() {
        fields.forget(None, "status");
    }
    fields
}

/// The object after a write that is no apply, with its owners: the writer has what it changed,
/// the others no longer do. What an apply did is already in the object.
pub fn after_update(call: &Call, old: Option<&Value>, mut new: Value) -> Value {
    if call.content_type() == APPLY {
        return new;
    }
    let sent = read(&new);
    let before = old.map(read).unwrap_or_default();
    let mut owners = if sent.is_empty() { before } else { sent };
    // What was made with nothing to own is not followed before somebody applies.
    if old.is_some() && owners.is_empty() {
        return new;
    }
    let empty = blank(&call.resource, &new);
    let (changed, removed) = Fields::compare(types(&call.resource), old.unwrap_or(&empty), &new);
    let changed = ownable(call, changed);
    let mut writer = Owner::of(call);
    if let Some(index) = owners.iter().position(|owner| owner.is(&writer)) {
        let known = owners.remove(index);
        let fields = known.fields.clone().union(&changed).minus(&removed);
        writer = if fields == known.fields {
            known
        } else {
            Owner { fields, ..writer }
        };
    } else {
        writer.fields = changed.clone();
    }
    disown(&mut owners, &changed, &removed);
    owners.push(writer);
    write(&mut new, owners);
    new
}

/// Notes what the server itself has changed.
pub fn by_server(resource: &Resource, subresource: Option<&str>, old: &Value, new: &mut Value) {
    let (mut changed, removed) = Fields::compare(types(resource), old, new);
    for field in UNOWNED {
        changed.forget(Some("metadata"), field);
    }
    let mut owners = read(new);
    disown(&mut owners, &changed, &removed);
    owners.push(Owner {
        manager: "kube-apiserver".to_owned(),
        operation: "Update".to_owned(),
        api_version: resource.api_version(),
        time: clock::now(),
        subresource: subresource.map(str::to_owned),
        fields: changed,
    });
    write(new, owners);
}

/// Takes fields from owners, as another has changed or removed them.
pub fn disown(owners: &mut [Owner], changed: &Fields, removed: &Fields) {
    for owner in owners {
        owner.fields = owner.fields.minus(changed).minus(removed);
    }
}

/// What a new object is compared with: built-in kinds have an empty spec and status from the start.
fn blank(resource: &Resource, new: &Value) -> Value {
    let mut blank = json!({"metadata": {}});
    if resource.custom.is_none() {
        for field in ["spec", "status"] {
            if new[field].is_object() {
                blank[field] = json!({});
            }
        }
    }
    match resource.kind.as_str() {
        "CustomResourceDefinition" => blank["spec"]["names"] = json!({}),
        "Event" => admit::default_event(&mut blank),
        _ => {}
    }
    blank
}

/// Whether a write changes nothing.
pub fn same(old: &Value, new: &Value) -> bool {
    old == new
}
