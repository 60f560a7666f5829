//! Owns [`Sighting`]: one packet, and the line that tells what became of it. Never the bytes that
//! may be a password. Pure.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    agent::metrics::{Invalid, Verdict, carrier_word},
    mac::MacAddr,
    wake::Origin,
};

/// One packet, and what became of it.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) at: Timestamp,
    /// The interface that heard it; empty where unknown.
    pub(super) interface: Arc<str>,
    /// None for a frame that cannot be read.
    pub(super) origin: Option<Origin>,
    pub(super) targets: Vec<MacAddr>,
    /// Bytes that followed the pattern, cut to six.
    pub(super) trailing: usize,
    pub(super) verdict: Result<Verdict, Invalid>,
}

impl Sighting {
    /// The line for people; repeats are those within `window`.
    pub(super) fn text(&self, window: Duration) -> String {
        let mut line = self.at.strftime("%H:%M:%S%.3fZ").to_string();
        // Writing to a string does not fail.
        let mut add = |text: &str| {
            let _ = write!(line, " {text}");
        };
        add(match &*self.interface {
            "" => "?",
            name => name,
        });
        if let Some(origin) = &self.origin {
            if let Some(vlan) = origin.vlan {
                add(&format!("(VLAN {vlan})"));
            }
            add(&sender(origin));
            add(carrier_word(origin.carrier));
        }
        for target in &self.targets {
            add(&target.to_string());
        }
        match self.trailing {
            0 => {}
            bytes @ (4 | 6) => add(&format!("(and {bytes} bytes that may be a password)")),
            bytes => add(&format!("(and {bytes} more bytes)")),
        }
        let verdict = match self.verdict {
            Ok(Verdict::Reported) => "would be reported".to_owned(),
            Ok(Verdict::Repeat) => format!("a repeat within {window:?}"),
            Ok(Verdict::Filtered) => "refused by the filter of interfaces and sources".to_owned(),
            Ok(Verdict::Limited) => "refused, as too many come".to_owned(),
            Ok(Verdict::Stale) => "not read before it was too old".to_owned(),
            Ok(Verdict::Invalid) => "not a magic packet".to_owned(),
            Err(reason) => format!("not a magic packet: {}", why(reason)),
        };
        let _ = write!(line, ": {verdict}");
        line
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let origin = self.origin.as_ref();
        let targets: Vec<_> = self.targets.iter().map(ToString::to_string).collect();
        let port = origin.map(|one| one.source_port).filter(|port| *port > 0);
        json!({
            "time": format!("{:.3}", self.at),
            "interface": &*self.interface,
            "vlan": origin.and_then(|one| one.vlan),
            "source": origin.and_then(|one| one.source),
            "sourcePort": port,
            "sourceMac": origin.and_then(|one| one.source_mac).map(|mac| mac.to_string()),
            "carrier": origin.map(|one| carrier_word(one.carrier)),
            "bytes": origin.map(|one| one.length),
            "targets": targets,
            "trailingBytes": self.trailing,
            "verdict": word(self.verdict),
            "reason": self.verdict.err().map(why),
        })
    }
}

/// The word for a verdict.
pub(super) const fn word(verdict: Result<Verdict, Invalid>) -> &'static str {
    match verdict {
        Ok(Verdict::Reported) => "reported",
        Ok(Verdict::Repeat) => "repeat",
        Ok(Verdict::Filtered) => "filtered",
        Ok(Verdict::Limited) => "limited",
        Ok(Verdict::Stale) => "stale",
        Ok(Verdict::Invalid) | Err(_) => "invalid",
    }
}

/// Why a packet is no magic packet, for people.
pub(super) fn why(reason: Invalid) -> String {
    match reason {
        Invalid::Payload(rejection) => rejection.to_string(),
        Invalid::Frame(rejection) => rejection.to_string(),
        Invalid::Outgoing => "this node itself sends it".to_owned(),
        Invalid::Oversized => "longer than any that a sender makes".to_owned(),
    }
}

fn sender(origin: &Origin) -> String {
    match (origin.source, origin.source_port, origin.source_mac) {
        (Some(ip), 0, _) => ip.to_string(),
        (Some(ip), port, _) => SocketAddr::new(ip, port).to_string(),
        (None, _, Some(mac)) => mac.to_string(),
        (None, _, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::Rejection, wake::Carrier};

    fn sighting(verdict: Result<Verdict, Invalid>) -> Sighting {
        Sighting {
            at: Timestamp::UNIX_EPOCH + Duration::from_millis(1_123),
            interface: "eth0".into(),
            origin: Some(Origin {
                carrier: Carrier::EthernetUdp,
                interface: "eth0".into(),
                vlan: Some(5),
                source_mac: None,
                source: Some([10, 0, 0, 7].into()),
                source_port: 51_234,
                length: 150,
            }),
            targets: vec![MacAddr::new([0x52, 0x54, 0, 0x12, 0x34, 0x56])],
            trailing: 6,
            verdict,
        }
    }

    #[test]
    fn a_line_says_when_where_from_whom_for_whom_and_what_became_of_it() {
        let line = |verdict| sighting(verdict).text(Duration::from_secs(2));
        let begin = "00:00:01.123Z eth0 (VLAN 5) 10.0.0.7:51234 ethernet-udp 52:54:00:12:34:56 \
             (and 6 bytes that may be a password): ";
        for (verdict, end) in [
            (Ok(Verdict::Reported), "would be reported"),
            (Ok(Verdict::Repeat), "a repeat within 2s"),
            (
                Ok(Verdict::Filtered),
                "refused by the filter of interfaces and sources",
            ),
            (Ok(Verdict::Limited), "refused, as too many come"),
        ] {
            assert_eq!(line(verdict), format!("{begin}{end}"));
        }
        let short = Sighting {
            targets: Vec::new(),
            trailing: 0,
            ..sighting(Err(Invalid::Payload(Rejection::Short)))
        };
        let line = short.text(Duration::from_secs(2));
        let end = "ethernet-udp: not a magic packet: shorter than 102 bytes";
        assert!(line.ends_with(end), "{line}");
        assert_eq!(short.json()["reason"], "shorter than 102 bytes");
        assert_eq!(short.json()["time"], "1970-01-01T00:00:01.123Z");
    }
}
