//! Owns `probe`: asks the agent of this pod how it is, for kubelet, which can run no other program in
//! an image that has none.

use std::{
    io::{self, ErrorKind, Read as _, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::cli::{ProbeArgs, Question};

/// How long an agent may take to answer; kubelet is to wait for longer, so that it is told why.
const PATIENCE: Duration = Duration::from_secs(3);

/// No answer is longer; what comes after is not read.
const LONGEST: usize = 16 << 10;

/// Asks, and writes the answer to `out`.
///
/// # Errors
///
/// The answer is no, or there is none.
pub fn run(args: &ProbeArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let (path, not) = match args.what {
        Question::Ready => ("/readyz", "not ready"),
        Question::Live => ("/livez", "not alive"),
    };
    let answer =
        ask(&args.health_socket, path).map_err(|error| explained(&args.health_socket, error))?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, words) = answer
        .split_once("\r\n\r\n")
        .context("what the agent answers is cut off")?;
    match head.split(' ').nth(1) {
        Some("200") => write!(out, "{words}").context("cannot write the answer"),
        _ => bail!("{not}: {}", words.trim_end()),
    }
}

/// The whole answer, head and all.
fn ask(socket: &Path, path: &str) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // It holds for connecting, too, which waits where the agent takes up no connections.
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.connect(&SockAddr::unix(socket)?)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let (mut answer, mut part) = (Vec::new(), [0; 1024]);
    while answer.len() < LONGEST {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part)? {
            0 => break,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(answer)
}

fn explained(socket: &Path, error: io::Error) -> anyhow::Error {
    let socket = socket.display();
    let what = match error.kind() {
        ErrorKind::NotFound => {
            format!("no agent runs with --health-socket {socket}, or it has not come so far yet")
        }
        ErrorKind::ConnectionRefused => format!("the agent that made {socket} has ended"),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!(
                "the agent behind {socket} does not answer within {} s",
                PATIENCE.as_secs()
            )
        }
        _ => format!("cannot ask the agent by {socket}"),
    };
    anyhow::Error::new(error).context(what)
}
