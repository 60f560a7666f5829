//! The pages against the program and the project: every command can be typed, every recipe is there,
//! and every link leads somewhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    sync::LazyLock,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use kubevirt_wol::cli::Cli;
use regex::Regex;

use super::pages::{pages, pipelines, prose, root};

const JUSTFILE: &str = include_str!("../../justfile");

/// Programs whose commands are only looked at by people, or by tests of their own.
const OTHERS: [&str; 14] = [
    "bash",
    "buildah",
    "cd",
    "curl",
    "docker",
    "export",
    "firewall-cmd",
    "git",
    "grep",
    "helm",
    "nft",
    "podman",
    "sed",
    "tcpdump",
];

/// The names of the recipes.
fn recipes() -> BTreeSet<&'static str> {
    static HEAD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?m)^([a-z][a-z0-9-]*)(?: [^\n:]*)?:(?: |$)").unwrap());
    let heads = HEAD.captures_iter(JUSTFILE);
    heads.map(|head| head.get(1).unwrap().as_str()).collect()
}

/// What is wrong with arguments of ours.
fn ours(words: &[String]) -> Result<(), String> {
    let words = words.iter().map(String::as_str);
    let words = std::iter::once("kubevirt-wol").chain(words);
    match Cli::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
            _ => Err(error.to_string()),
        },
    }
}

fn after<'a>(words: &'a [String], mark: &str) -> Option<&'a [String]> {
    let at = words.iter().position(|word| word == mark)?;
    Some(&words[at + 1..])
}

/// What is wrong with arguments of cargo.
fn of_cargo(words: &[String]) -> Result<(), String> {
    let own = words.split(|word| word == "--").next().unwrap_or_default();
    for (flag, folder) in [
        ("--example", "examples"),
        ("--bench", "benches"),
        ("--test", "tests"),
    ] {
        if let Some([name, ..]) = after(own, flag) {
            let file = root().join(folder).join(name).with_extension("rs");
            if !file.is_file() {
                return Err(format!("there is no {}", file.display()));
            }
        }
    }
    let is_the_program =
        own.first().is_some_and(|it| it == "run") && after(own, "--example").is_none();
    match after(words, "--") {
        Some(arguments) if is_the_program => ours(arguments),
        _ => Ok(()),
    }
}

/// What is wrong with a command.
fn judge(command: &[String]) -> Result<(), String> {
    let Some((program, words)) = command.split_first() else {
        return Ok(());
    };
    match &**program {
        "kubevirt-wol" | "/kubevirt-wol" => ours(words),
        "sudo" => judge(words),
        "cargo" => of_cargo(words),
        "just" => match words {
            [recipe, ..] if recipe.starts_with('-') || recipes().contains(&**recipe) => Ok(()),
            _ => Err("there is no such recipe".to_owned()),
        },
        "kubectl" => match after(words, "--") {
            Some(inside) => judge(inside),
            None => Ok(()),
        },
        other if OTHERS.contains(&other) => Ok(()),
        other => Err(format!("nobody says what {other} is")),
    }
}

#[test]
fn every_command_of_the_pages_can_be_typed() {
    let (mut wrong, mut known) = (Vec::new(), BTreeMap::<_, usize>::new());
    for page in pages() {
        for command in pipelines(&page.text).into_iter().flatten() {
            *known.entry(command[0].clone()).or_default() += 1;
            if let Err(error) = judge(&command) {
                wrong.push(format!("{}: {}: {error}", page.path, command.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (program, at_least) in [
        ("cargo", 8),
        ("just", 10),
        ("kubectl", 60),
        ("kubevirt-wol", 15),
    ] {
        let found = known.get(program).copied().unwrap_or_default();
        assert!(found >= at_least, "only {found} of {program}");
    }
}

/// Commands between backticks are mentions, of which arguments may be left out.
#[test]
fn what_the_pages_mention_exists() {
    static MENTION: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"`(?:[A-Z_]+=\S+ )*(kubevirt-wol|just) ([a-z][^`]*)`").unwrap()
    });
    let mut cli = Cli::command();
    cli.build();
    let recipes = recipes();
    let (mut wrong, mut mentions) = (Vec::new(), 0);
    for page in pages() {
        let text = prose(&page.text).replace('\n', " ");
        for mention in MENTION.captures_iter(&text) {
            mentions += 1;
            let mut words = mention[2].split_whitespace();
            let first = words.next().unwrap_or_default();
            let fault = if &mention[1] == "just" {
                (!recipes.contains(first)).then(|| "there is no such recipe".to_owned())
            } else if let Some(command) = cli.find_subcommand(first) {
                let known = |flag: &str| {
                    let name = flag.trim_start_matches("--").split('=').next();
                    let mut all = command.get_arguments();
                    all.any(|argument| argument.get_long() == name)
                };
                let unknown = words.find(|word| word.starts_with("--") && !known(word));
                unknown.map(|flag| format!("there is no {flag}"))
            } else {
                Some("there is no such command".to_owned())
            };
            if let Some(fault) = fault {
                wrong.push(format!("{}: {}: {fault}", page.path, &mention[0]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(mentions > 20, "only {mentions} were found");
}

/// The anchors of a page, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    for heading in headings {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        let anchor: String = kept.collect();
        let twice = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(twice);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    anchors
}

/// The path without `..`.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain.to_str().unwrap().to_owned()
}

/// Where the links of a page lead, within the project: file and anchor.
fn links(path: &str, text: &str) -> Vec<(String, Option<String>)> {
    static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\]\(([^)\s]+)\)").unwrap());
    let prose = prose(text);
    let links = LINK.captures_iter(&prose).filter_map(|link| {
        let target = &link[1];
        if target.contains("://") || target.starts_with("mailto:") {
            return None;
        }
        let (file, anchor) = match target.split_once('#') {
            Some((file, anchor)) => (file, Some(anchor.to_owned())),
            None => (target, None),
        };
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let file = match file {
            "" => path.to_owned(),
            file => plain(&folder.join(file)),
        };
        Some((file, anchor))
    });
    links.collect()
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_reached() {
    let pages = pages();
    let anchors: BTreeMap<_, _> = pages
        .iter()
        .map(|page| (page.path.clone(), anchors(&page.text)))
        .collect();
    let mut wrong = Vec::new();
    let mut next = BTreeMap::<_, BTreeSet<String>>::new();
    for page in &pages {
        for (file, anchor) in links(&page.path, &page.text) {
            let there = root().join(&file).exists();
            let anchored = anchor.as_ref().is_none_or(|anchor| {
                let known = anchors.get(&file);
                known.is_some_and(|known| known.contains(anchor))
            });
            if !there || !anchored {
                let anchor = anchor.unwrap_or_default();
                wrong.push(format!("{}: {file}#{anchor}", page.path));
            }
            next.entry(page.path.clone()).or_default().insert(file);
        }
    }
    assert!(wrong.is_empty(), "links to nothing:\n{}", wrong.join("\n"));
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    let mut open = vec!["README.md".to_owned()];
    while let Some(page) = open.pop() {
        for file in next.get(&page).into_iter().flatten() {
            if reached.insert(file.clone()) {
                open.push(file.clone());
            }
        }
    }
    let lost = anchors
        .keys()
        .filter(|page| page.starts_with("docs/") && !reached.contains(*page));
    let lost: Vec<_> = lost.collect();
    assert!(lost.is_empty(), "no link from README.md leads to {lost:?}");
}

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let page = "```sh\nA=b just run 'a b' # note\n  kubectl get -o \"x|y\" NAMESPACE/NAME | grep z > f; ls\n```\n\
                - text\n  ```console\n  $ one \\\n    two\n  printed\n  ```\n```yaml\nx: y\n```\n";
    let expected: Vec<Vec<Vec<&str>>> = vec![
        vec![vec!["just", "run", "a b"]],
        vec![
            vec!["kubectl", "get", "-o", "x|y", "home/desktop"],
            vec!["grep", "z"],
        ],
        vec![vec!["ls"]],
        vec![vec!["one", "two"]],
    ];
    assert_eq!(pipelines(page), expected);
}

#[test]
fn a_command_that_cannot_be_typed_is_noticed() {
    for (line, right) in [
        ("kubevirt-wol check", true),
        ("kubevirt-wol check --nonsense", false),
        ("kubevirt-wol send 52:54:00", false),
        ("cargo run -- send --dry-run 52:54:00:12:34:56", true),
        ("cargo run -- sned", false),
        ("cargo run --example nonsense", false),
        ("just demo", true),
        ("just nonsense", false),
        ("kubectl exec x -- /kubevirt-wol check", true),
        ("kubectl exec x -- nc -zv y 9090", false),
        ("frobnicate", false),
    ] {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        assert_eq!(judge(&words).is_ok(), right, "{line}: {:?}", judge(&words));
    }
    assert!(recipes().contains("deploy-all") && !recipes().contains("rendered"));
    let text = "# A `b`: c\n[x](y.md#z) [w](https://w) [v](#a-b-c)\n## A b c\n";
    assert!(anchors(text).contains("a-b-c") && anchors(text).contains("a-b-c-1"));
    let links = links("docs/p.md", text);
    let expected = [("docs/y.md", "z"), ("docs/p.md", "a-b-c")];
    let expected = expected.map(|(file, anchor)| (file.to_owned(), Some(anchor.to_owned())));
    assert_eq!(links, expected);
}
