//! Owns how tests read the project's pages: where they are, their blocks, and the commands in these.

use std::{fs, path::Path};

/// A page of Markdown.
pub struct Page {
    /// Where it is, from the root of the project.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// All pages that people read.
pub fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for folder in [
        "",
        "docs",
        "docs/runbooks",
        "fuzz",
        "deploy",
        "deploy/chart",
    ] {
        let Ok(entries) = fs::read_dir(root().join(folder)) else {
            continue;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let markdown = Path::new(&name).extension().is_some_and(|it| it == "md");
            if markdown {
                let path = format!("{folder}/{name}")
                    .trim_start_matches('/')
                    .to_owned();
                let text = fs::read_to_string(root().join(&path)).unwrap();
                pages.push(Page { path, text });
            }
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    pages
}

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The blocks between fences: their language, and their lines without the indent of the fence.
pub fn blocks(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let fence = line.trim_start();
        let Some(language) = fence.strip_prefix("```") else {
            continue;
        };
        let indent = &line[..line.len() - fence.len()];
        let body = lines
            .by_ref()
            .take_while(|line| line.trim() != "```")
            .map(|line| line.strip_prefix(indent).unwrap_or(line));
        blocks.push((language, body.collect()));
    }
    blocks
}

/// The text without its blocks.
pub fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if !fenced && !fence {
            prose += line;
            prose += "\n";
        }
    }
    prose
}

/// Programs of one pipeline, each with its arguments.
pub type Pipeline = Vec<Vec<String>>;

/// What the blocks for a shell say to type, with examples in the places of names that stand for
/// others. Where lines begin with `$ `, the others are what is printed.
pub fn pipelines(text: &str) -> Vec<Pipeline> {
    let blocks = blocks(text).into_iter();
    let blocks =
        blocks.filter(|(language, _)| ["sh", "console", "shell", "bash"].contains(language));
    let mut all = Vec::new();
    for (_, lines) in blocks {
        let typed = lines.join("\n").replace("\\\n", " ");
        let asked = typed.lines().any(|line| line.starts_with("$ "));
        for line in typed.lines() {
            match line.strip_prefix("$ ") {
                Some(line) => all.extend(split(line)),
                None if asked => {}
                None => all.extend(split(line)),
            }
        }
    }
    all
}

/// The pipelines of a line, as a shell parts it.
fn split(line: &str) -> Vec<Pipeline> {
    let mut all = vec![vec![Vec::new()]];
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (' ' | '|' | ';' | '&', None) => {
                end(&mut all, word.take());
                match letter {
                    '|' => all.last_mut().unwrap().push(Vec::new()),
                    ';' | '&' => all.push(vec![Vec::new()]),
                    _ => {}
                }
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    end(&mut all, word);
    for pipeline in &mut all {
        pipeline.retain_mut(|command| {
            without_the_shell(command);
            !command.is_empty()
        });
    }
    all.retain(|pipeline| !pipeline.is_empty());
    all
}

fn end(all: &mut [Pipeline], word: Option<String>) {
    let command = all.last_mut().and_then(|it| it.last_mut());
    if let (Some(command), Some(word)) = (command, word) {
        command.push(filled(&word));
    }
}

/// Takes away what a shell keeps for itself: variables in front, and where output goes.
fn without_the_shell(command: &mut Vec<String>) {
    let is_variable = |word: &String| {
        let name = word.split_once('=').map(|(name, _)| name);
        name.is_some_and(|it| it.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let variables = command.iter().take_while(|word| is_variable(word)).count();
    command.drain(..variables);
    if let Some(to) = command.iter().position(|word| word == ">" || word == "<") {
        command.truncate(to);
    }
}

/// Examples of what stands for other names.
const EXAMPLES: [(&str, &str); 7] = [
    ("NODE-ADDRESS", "10.0.0.21"),
    ("NAMESPACE", "home"),
    ("CONFIG", "default"),
    ("NAME", "desktop"),
    ("NODE", "node-1"),
    ("POD", "kubevirt-wol-agent-x"),
    ("MAC", "52:54:00:12:34:56"),
];

fn filled(word: &str) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_uppercase()) {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        let length = rest[begin..].find(|c| !of_a_name(c));
        let end = length.map_or(rest.len(), |length| begin + length);
        let name = &rest[begin..end];
        let example = EXAMPLES.iter().find(|(known, _)| *known == name);
        filled += &rest[..begin];
        // What precedes it must end a word, too: not `macAddress`.
        let apart = !rest[..begin].ends_with(of_a_name) && !filled.ends_with(of_a_name);
        filled += example
            .filter(|_| apart)
            .map_or(name, |(_, example)| example);
        rest = &rest[end..];
    }
    filled + rest
}
