//! Owns where the agent connects to, and how patiently.

use std::time::Duration;

use tonic::transport::Endpoint;

use crate::UsageError;

/// A manager that does not answer within this time is taken as not there.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is probed this often, and given up when a probe is not answered in time.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// The first and the longest time between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Reads the address of a manager: `host:port`, or a whole `http://` URL.
///
/// # Errors
///
/// It is neither.
pub(super) fn endpoint(manager: &str) -> Result<Endpoint, UsageError> {
    let url = if manager.contains("://") {
        manager.to_owned()
    } else {
        format!("http://{manager}")
    };
    let usable = |endpoint: &Endpoint| {
        let uri = endpoint.uri();
        uri.scheme_str() == Some("http") && uri.port_u16().is_some()
    };
    let endpoint = Endpoint::from_shared(url).ok().filter(usable);
    let endpoint = endpoint.ok_or_else(|| {
        UsageError::new(format!(
            "--manager {manager:?} is not of the form host:port or http://host:port"
        ))
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true))
}

/// Doubles from 100 ms to 5 s, and takes a random share of that, so that the agents of a cluster do
/// not come back all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// How many pauses there were.
    pub(super) attempts: u32,
}

impl Backoff {
    /// The time until the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = BACKOFF.0.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        doubled.min(BACKOFF.1).mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_named_by_host_and_port_or_by_url() {
        for good in [
            "kubevirt-wol-grpc.kubevirt-wol-system.svc:9090",
            "127.0.0.1:9090",
            "[::1]:9090",
            "http://manager:9090",
        ] {
            let endpoint = endpoint(good).unwrap();
            assert_eq!(endpoint.uri().port_u16(), Some(9090), "{good}");
        }
        for bad in [
            "",
            "manager",
            "https://manager:9090",
            "http://manager",
            "a b:1",
            "x:70000",
        ] {
            let error = endpoint(bad).unwrap_err().to_string();
            assert!(error.contains("host:port"), "{bad:?}: {error}");
        }
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_differ_between_agents() {
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..500 {
            let mut backoff = Backoff::default();
            for longest in &mut longest {
                *longest = backoff.next().max(*longest);
            }
        }
        for (attempt, longest) in longest.into_iter().enumerate() {
            let limit = BACKOFF.1.min(BACKOFF.0 * (1 << attempt));
            assert!(longest <= limit, "attempt {attempt}: {longest:?}");
            assert!(longest > limit / 2, "attempt {attempt}: {longest:?}");
        }
    }
}
