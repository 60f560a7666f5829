//! Owns how the page is read, and when what it shows is what was printed.

use std::sync::LazyLock;

use regex::Regex;

/// A command of the page and the lines that it shows as printed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub(crate) command: &'a str,
    pub(crate) shown: Vec<&'a str>,
}

/// The blocks of the page that begin with a command.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line != "```console" {
            continue;
        }
        let mut block = lines.by_ref().take_while(|line| *line != "```");
        if let Some(command) = block.next().and_then(|first| first.strip_prefix("$ ")) {
            let shown = block.collect();
            found.push(Block { command, shown });
        }
    }
    found
}

/// Whether the lines are those that were printed, where `...` stands for any number of them.
pub(crate) fn shows(shown: &[&str], printed: &str) -> bool {
    let printed: Vec<_> = printed.lines().map(plain).collect();
    let mut left = &*printed;
    let parts: Vec<Vec<_>> = shown
        .split(|line| line.trim() == "...")
        .map(|part| part.iter().map(|line| plain(line)).collect())
        .collect();
    let [first, rest @ ..] = &*parts else {
        return false;
    };
    let Some(after) = left.strip_prefix(&**first) else {
        return false;
    };
    left = after;
    let Some((last, middle)) = rest.split_last() else {
        return left.is_empty();
    };
    for part in middle.iter().filter(|part| !part.is_empty()) {
        let Some(at) = left.windows(part.len()).position(|lines| lines == *part) else {
            return false;
        };
        left = &left[at + part.len()..];
    }
    left.ends_with(last)
}

/// A line without what differs from run to run: times, ages, uids, versions of objects, ports
/// that nobody else has, and the width of columns, which follows from them.
fn plain(line: &str) -> String {
    static DIFFERS: LazyLock<[(Regex, &str); 6]> = LazyLock::new(|| {
        [
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
            (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UID"),
            (r#"(?i)(resource ?version:\s*)"?\d+"?"#, "${1}VERSION"),
            (r"(\s)(\d+[dhms]){1,2}(\s|$)", "${1}AGE${3}"),
            (r"\b[1-6]\d{4}\b", "PORT"),
            (r"(\S)\s{2,}", "$1 "),
        ]
        .map(|(pattern, instead)| (Regex::new(pattern).unwrap(), instead))
    });
    let line = line.trim_end().to_owned();
    DIFFERS.iter().fold(line, |line, (pattern, instead)| {
        pattern.replace_all(&line, *instead).into_owned()
    })
}

#[test]
fn blocks_are_found_with_their_commands() {
    let page = "text\n```console\n$ a b\none\n```\n```yaml\nx: 1\n```\n```console\n$ c\n```\n";
    let expected = [("a b", vec!["one"]), ("c", vec![])];
    let expected = expected.map(|(command, shown)| Block { command, shown });
    assert_eq!(blocks(page), expected);
}

#[test]
fn what_differs_from_run_to_run_is_not_compared() {
    for (one, other) in [
        (
            "Time:  2026-11-24T20:00:00Z",
            "Time:  2027-01-02T03:04:05.678Z",
        ),
        (
            "uid: 0a0b0c0d-0000-1111-2222-333344445555",
            "uid: 6b9f8a52-cb12-4d0e-9e3e-55a1f0b1c2d3",
        ),
        (
            "    resourceVersion: \"17\"",
            "    resourceVersion: \"2345\"",
        ),
        ("  Normal  Woken  2s  by", "  Normal  Woken  11m5s  by"),
        ("ports: [40009]", "ports: [51234]"),
        ("NAME   AGE", "NAME      AGE"),
    ] {
        assert!(shows(&[one], other), "{one} {other}");
    }
}

#[test]
fn what_is_wrong_is_noticed() {
    let printed = "a\nb: 2\nc\nd\ne\n";
    for right in [
        &["a", "b: 2", "c", "d", "e"] as &[_],
        &["a", "...", "e"],
        &["a", "...", "c", "...", "e"],
        &["...", "c", "d", "..."],
        &["..."],
    ] {
        assert!(shows(right, printed), "{right:?}");
    }
    for wrong in [
        &["a", "b: 3", "c", "d", "e"] as &[_],
        &["a", "  b: 2", "c", "d", "e"],
        &["a", "b: 2", "c", "d"],
        &["a", "b: 2", "c", "d", "e", "f"],
        &["b: 2", "...", "e"],
        &["a", "...", "d"],
        &["a", "...", "d", "...", "c", "..."],
        &["a", "...", "b: 2", "d", "..."],
        &[],
    ] {
        assert!(!shows(wrong, printed), "{wrong:?}");
    }
}
