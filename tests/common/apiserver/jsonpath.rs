//! Owns the JSON paths of printer columns: fields, indices, `[*]` and `[?(@.a=="b")]`.

use serde_json::Value;

/// All values at a path such as `.status.conditions[?(@.type=="Ready")].status`.
pub fn find<'a>(path: &str, root: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![root];
    let mut rest = path.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = after.find(']').unwrap_or(after.len());
            let (inside, after) = after.split_at(end);
            found = found
                .into_iter()
                .flat_map(|value| pick(inside, value))
                .collect();
            rest = after.strip_prefix(']').unwrap_or_default();
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let mut escaped = false;
            let end = field.find(|letter| {
                let ends = !escaped && matches!(letter, '.' | '[');
                escaped = letter == '\\';
                ends
            });
            let (name, after) = field.split_at(end.unwrap_or(field.len()));
            let name = name.replace('\\', "");
            found = found
                .into_iter()
                .filter_map(|value| value.get(&name))
                .collect();
            rest = after;
        }
    }
    found
}

/// What an expression in brackets picks.
fn pick<'a>(expression: &str, value: &'a Value) -> Vec<&'a Value> {
    let items = || value.as_array().into_iter().flatten();
    let text = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    if expression == "*" {
        return items().collect();
    }
    if let Ok(index) = expression.parse::<usize>() {
        return value.get(index).into_iter().collect();
    }
    let Some(filter) = expression
        .strip_prefix("?(@")
        .and_then(|rest| rest.strip_suffix(')'))
    else {
        return value.get(text(expression)).into_iter().collect();
    };
    let Some((path, wanted)) = filter.split_once("==") else {
        return items()
            .filter(|item| !find(filter, item).is_empty())
            .collect();
    };
    let wanted = text(wanted);
    let equal = |value: &&Value| {
        value
            .as_str()
            .map_or(value.to_string() == wanted, |text| text == wanted)
    };
    items()
        .filter(|item| find(path.trim(), item).iter().any(equal))
        .collect()
}
