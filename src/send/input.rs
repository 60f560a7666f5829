//! Owns what `send` reads before it sends: the targets and the password.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use anyhow::Context as _;

use super::{SendArgs, Target};
use crate::{UsageError, packet::Trailing, password::Password};

/// Longer lines than this are no targets and no passwords.
const MAX_LINE: u64 = 512;

/// The targets of the command line and of `--file`, each once, in the order given.
pub(super) fn targets(args: &SendArgs) -> anyhow::Result<Vec<Target>> {
    let mut targets = args.targets.clone();
    if let Some(path) = &args.file {
        let name = path.display();
        let lines: Box<dyn BufRead> = if path.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(open(path)?))
        };
        read_list(lines, &name.to_string(), &mut targets)?;
    }
    let mut seen = std::collections::HashSet::new();
    targets.retain(|target| seen.insert(target.clone()));
    if targets.is_empty() {
        return Err(UsageError::new(
            "nothing to wake: the file lists no MAC address and no vm/NAMESPACE/NAME",
        )
        .into());
    }
    for target in &targets {
        if let Target::Mac(mac) = target
            && !args.force
            && !mac.is_station()
        {
            return Err(UsageError::new(format!(
                "{mac} is not the address of one machine; to send it anyway, add --force"
            ))
            .into());
        }
    }
    Ok(targets)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Reads one target per line into `targets`; `#` begins a comment.
fn read_list(mut lines: impl BufRead, name: &str, targets: &mut Vec<Target>) -> anyhow::Result<()> {
    for number in 1_u64.. {
        let Some(line) = read_line(&mut lines).with_context(|| format!("cannot read {name}"))?
        else {
            break;
        };
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let target = text
            .parse()
            .map_err(|error| UsageError::new(format!("{name}, line {number}: {error}")))?;
        targets.push(target);
    }
    Ok(())
}

/// The next line, without its end; none at the end of the input. A line that is too long comes in
/// pieces, of which the first is wrong anyway.
fn read_line(lines: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if lines.take(MAX_LINE).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

/// The password's bytes, if one was given.
pub(super) fn password(args: &SendArgs) -> anyhow::Result<Option<Trailing>> {
    let from_file;
    let text = match (&args.password, &args.password_file) {
        (Some(text), _) => text.as_str(),
        (None, Some(path)) => {
            from_file = read_line(&mut BufReader::new(open(path)?))
                .with_context(|| format!("cannot read {}", path.display()))?
                .unwrap_or_default();
            from_file.trim()
        }
        (None, None) => return Ok(None),
    };
    // Says nothing of the text: it may be the password but for a typing error.
    let password = Password::from_text(text).ok_or_else(|| {
        UsageError::new(
            "the password is neither four bytes like 192.168.1.1 nor six like 01:23:45:67:89:ab",
        )
    })?;
    Ok(Some(Trailing::cut(password.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::{Target, read_list};
    use crate::kubevirt::VmKey;

    #[test]
    fn a_list_has_one_target_per_line_in_any_notation() {
        let list = "# all of rack 4\n\n52:54:00:12:34:56\n  5254.0012.3457 # web\n\t\r\n52-54-00-12-34-58\r\nvm/shop/db # too\n525400123459";
        let mac = |last| Target::Mac(format!("52:54:00:12:34:{last}").parse().unwrap());
        let mut targets = vec![mac(55)];
        read_list(list.as_bytes(), "list", &mut targets).unwrap();
        let vm = Target::Vm(VmKey::new("shop", "db"));
        assert_eq!(targets, [mac(55), mac(56), mac(57), mac(58), vm, mac(59)]);
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let long = "f".repeat(1000);
        for list in ["\n#\nnonsense\n", &format!("\n\n{long}"), "\n\n\u{fffd}"] {
            let error = read_list(list.as_bytes(), "list", &mut Vec::new()).unwrap_err();
            assert!(error.to_string().starts_with("list, line 3: "), "{error}");
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}
