//! Owns server-side apply.

use serde_json::{Value, json};

use super::{
    admit,
    failure::{Cause, Failure, Invalid},
    fields::{self, Fields},
    managed::{self, Owner},
    route::Call,
    schema,
};

/// Reads an applied configuration: what the client says of this subresource, and no more.
///
/// # Errors
///
/// It is malformed, or the client does not say who it is.
pub fn parse(call: &Call) -> Result<Value, Failure> {
    if call.param("fieldManager").is_none() {
        let who = Invalid {
            group: "meta.k8s.io",
            kind: "PatchOptions",
            name: "",
        };
        let message = "Required value: is required for apply patch";
        let cause = Cause::new("FieldValueRequired", "fieldManager", message);
        return Err(Failure::invalid(&who, &[cause]));
    }
    let mut wanted: Value = serde_yaml::from_slice(&call.body)
        .map_err(|error| Failure::bad_request(format!("error decoding YAML: {error}")))?;
    if wanted["kind"].is_null() || wanted["apiVersion"].is_null() {
        return Err(Failure::bad_request("invalid object type: /, Kind="));
    }
    admit::check_type(&call.resource, &mut wanted)?;
    if !wanted["metadata"]["managedFields"].is_null() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    if let Value::Object(parts) = &mut wanted {
        match call.subresource.as_deref() {
            Some("status") => parts.retain(|part, _| part != "spec"),
            _ if call.resource.status => parts.retain(|part, _| part != "status"),
            _ => {}
        }
    }
    let undeclared = schema::prune(call, &mut wanted);
    if let [first, ..] = undeclared.as_slice() {
        return Err(not_declared(call, &wanted, first));
    }
    Ok(wanted)
}

/// What a configuration gets with a field that the schema does not have.
fn not_declared(call: &Call, wanted: &Value, field: &str) -> Failure {
    let metadata = &wanted["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
    let resource = &call.resource;
    let message = format!(
        "failed to create typed patch object ({}/{}; {}, Kind={}): .{field}: field not declared in \
         schema",
        text("namespace"),
        text("name"),
        resource.api_version(),
        resource.kind
    );
    Failure::unexplained(500, &message)
}

/// A configuration that makes a new object, with its owner.
pub fn first(call: &Call, mut wanted: Value) -> Value {
    let owner = claim(call, &wanted);
    managed::write(&mut wanted, vec![owner]);
    wanted
}

fn claim(call: &Call, wanted: &Value) -> Owner {
    let fields = Fields::applied(managed::types(&call.resource), wanted);
    Owner {
        fields: managed::ownable(call, fields),
        ..Owner::of(call)
    }
}

/// The object after an apply: what the configuration says is set, what this manager applied
/// before, says no longer and shares with nobody is gone.
///
/// # Errors
///
/// It would change fields of others and is not forced to.
pub fn merge(call: &Call, old: &Value, wanted: &Value) -> Result<Value, Failure> {
    let types = managed::types(&call.resource);
    let mut owner = claim(call, wanted);
    let mut others = managed::read(old);
    let last = others.iter().position(|other| other.is(&owner));
    let last = last.map(|index| others.remove(index));
    let merged = fields::merge(types, old, wanted);
    let (changed, _) = Fields::compare(types, old, &merged);
    let changed = managed::ownable(call, changed);
    if !call.flag("force") {
        refuse_conflicts(&others, &changed)?;
    }
    managed::disown(&mut others, &changed, &Fields::default());
    let held = others
        .iter()
        .fold(Fields::default(), |all, other| all.union(&other.fields));
    let mut new = merged;
    let last_time = last
        .as_ref()
        .map(|last| last.time.clone())
        .unwrap_or_default();
    if let Some(last) = last {
        let said = owner.fields.clone().union(&held).with_holders();
        let dropped = last.fields.minus(&said);
        new = dropped.cut(types, &new);
        if last.fields == owner.fields {
            owner.time = last.time;
        }
    }
    if unchanged(old, &new) {
        // The real server does not note when nothing happened.
        owner.time = last_time;
    }
    others.push(owner);
    managed::write(&mut new, others);
    Ok(new)
}

fn unchanged(old: &Value, new: &Value) -> bool {
    let mut new = new.clone();
    new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    *old == new
}

fn refuse_conflicts(others: &[Owner], changed: &Fields) -> Result<(), Failure> {
    let mut conflicts: Vec<(String, String)> = Vec::new();
    for other in others {
        let version = if other.operation == "Update" {
            format!(" using {}", other.api_version)
        } else {
            String::new()
        };
        let part = match &other.subresource {
            Some(subresource) => format!(" with subresource \"{subresource}\""),
            None => String::new(),
        };
        let who = format!("conflict with \"{}\"{part}{version}", other.manager);
        let paths = other.fields.both(changed).paths();
        conflicts.extend(paths.into_iter().map(|path| (who.clone(), path)));
    }
    let message = match conflicts.as_slice() {
        [] => return Ok(()),
        [(who, path)] => format!("Apply failed with 1 conflict: {who}: {path}"),
        many => format!(
            "Apply failed with {} conflicts:{}",
            many.len(),
            by_owner(many)
        ),
    };
    let causes = conflicts.iter().map(
        |(who, path)| json!({"reason": "FieldManagerConflict", "message": who, "field": path}),
    );
    let details = json!({"causes": causes.collect::<Vec<_>>()});
    Err(Failure::new(409, "Conflict", message, details))
}

/// Several conflicts, the paths of each owner together.
fn by_owner(conflicts: &[(String, String)]) -> String {
    let groups = conflicts.chunk_by(|(one, _), (other, _)| one == other);
    let groups = groups.map(|group| {
        let who = group[0].0.replacen("conflict", "conflicts", 1);
        let paths: Vec<String> = group
            .iter()
            .map(|(_, path)| format!("\n- {path}"))
            .collect();
        format!(" {who}:{}", paths.concat())
    });
    groups.collect::<Vec<_>>().concat()
}
