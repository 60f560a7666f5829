//! The seeds of the fuzz targets are what the vectors generate, and all of them pass the checks.
//! `WOL_WRITE_CORPUS=1 cargo test --test packets corpus` writes them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use kubevirt_wol::{
    frame::parse,
    rpc::{self, pb},
    settings::Settings,
    wake::{Answer, Origin, Outcome, Wake},
    wakeable::WakeableMacs,
};
use pb::{agent_message::Body as FromAgent, manager_message::Body as FromManager};
use prost::Message as _;

use crate::{
    build::{IPV4, IPV6, ethernet, ipv4, ipv6, udp},
    checks,
    fixtures::{self, TARGET, VECTORS},
};

/// File name to bytes.
type Seeds = BTreeMap<String, Vec<u8>>;

type Check = fn(&[u8]);

/// The targets with their seeds and their checks.
fn targets() -> [(&'static str, Seeds, Check); 3] {
    [
        ("frame", frames(), checks::frame),
        ("scan", payloads(), checks::scan),
        ("session", messages(), checks::session),
    ]
}

/// V1 to V19 as frames: of a burst, one datagram.
fn vectors() -> Seeds {
    let captured = VECTORS
        .iter()
        .map(|vector| (name(vector.id), vector.frame()));
    let wrap4 = |port, payload: &[u8]| {
        let segment = udp((40009, port), payload);
        ethernet(&[], IPV4, &ipv4([10, 77, 0, 1], 0, &segment))
    };
    let moonlight = fixtures::v18().pop().unwrap();
    let upsnap = fixtures::v19().pop().unwrap();
    let segment = udp((40009, moonlight.port), &moonlight.payload);
    captured
        .chain([
            ("v17".into(), wrap4(7, &fixtures::v17())),
            (
                "v18".into(),
                ethernet(&[], IPV6, &ipv6([0xfe; 16], 17, &segment)),
            ),
            ("v19".into(), wrap4(upsnap.port, &upsnap.payload)),
        ])
        .collect()
}

/// `V1` is `v01`, for files to be in order.
fn name(id: &str) -> String {
    format!("v{:0>2}", &id[1..])
}

fn frames() -> Seeds {
    let untagged = |(name, frame): (String, Vec<u8>)| (name, [vec![0; 3], frame].concat());
    let mut seeds: Seeds = vectors().into_iter().map(untagged).collect();
    // As a packet socket delivers it: with the tag beside the frame.
    let mut v14 = fixtures::frame("V14");
    let tag: Vec<u8> = v14.drain(12..16).collect();
    seeds.insert(
        "v14-tag-beside".into(),
        [&[1, tag[2], tag[3]], &*v14].concat(),
    );
    seeds
}

fn payloads() -> Seeds {
    let payload = |(name, frame): (String, Vec<u8>)| {
        let bytes = parse(&frame, None).unwrap().bytes.to_vec();
        (name, bytes)
    };
    vectors().into_iter().map(payload).collect()
}

/// The event of each vector, and one of every other message.
fn messages() -> Seeds {
    let mut seeds = Seeds::new();
    for (seq, (name, frame)) in (1..).zip(vectors()) {
        let event = rpc::event(seq, &heard(&frame), Duration::from_millis(250));
        seeds.insert(name, agent(FromAgent::Event(event)));
    }
    let own = [
        ("hello", agent(hello())),
        ("status", agent(status())),
        ("welcome", manager(welcome())),
        (
            "configuration",
            manager(FromManager::Configuration(rpc::configuration(
                3,
                &Settings::default(),
            ))),
        ),
        (
            "ack-final",
            manager(ack(&Answer::Final(Outcome::Started, "starting".into()))),
        ),
        (
            "ack-deferred",
            manager(ack(&Answer::Deferred(
                Duration::from_secs(90),
                "stopping".into(),
            ))),
        ),
        ("go-away", manager(go_away())),
        ("credential", agent(credential())),
        ("wakeable-macs", manager(wakeable())),
        ("legacy", legacy().encode_to_vec()),
    ];
    seeds.extend(own.map(|(name, bytes)| (name.to_owned(), bytes)));
    seeds
}

fn heard(frame: &[u8]) -> Wake {
    let payload = parse(frame, None).unwrap();
    let found = kubevirt_wol::packet::scan(payload.bytes).unwrap();
    let packet = found.packets()[0];
    Wake {
        target: packet.target,
        trailing: packet.trailing,
        origin: Origin {
            carrier: payload.carrier,
            interface: "br0".into(),
            vlan: payload.vlan,
            source_mac: Some(payload.source_mac),
            source: payload.datagram.map(|datagram| datagram.source),
            source_port: payload.datagram.map_or(0, |datagram| datagram.source_port),
            length: u32::try_from(frame.len()).unwrap(),
        },
    }
}

fn agent(body: FromAgent) -> Vec<u8> {
    pb::AgentMessage { body: Some(body) }.encode_to_vec()
}

fn manager(body: FromManager) -> Vec<u8> {
    pb::ManagerMessage { body: Some(body) }.encode_to_vec()
}

fn ack(answer: &Answer) -> FromManager {
    FromManager::Ack(rpc::ack(7, answer))
}

fn hello() -> FromAgent {
    FromAgent::Hello(pb::Hello {
        node_name: "node-1".into(),
        boot_id: 0x0123_4567_89ab_cdef,
        version: "0.1.0".into(),
    })
}

fn status() -> FromAgent {
    FromAgent::ConfigurationStatus(pb::ConfigurationStatus {
        generation: 3,
        accepted: true,
        message: "udp/7 failed".into(),
        listeners: vec![pb::Listener {
            name: "udp/7".into(),
            error: "address in use".into(),
        }],
    })
}

fn credential() -> FromAgent {
    FromAgent::Credential(pb::Credential {
        token: "header.payload.signature".into(),
    })
}

fn wakeable() -> FromManager {
    FromManager::WakeableMacs(rpc::wakeable_macs(&WakeableMacs::of(&[TARGET])))
}

fn welcome() -> FromManager {
    FromManager::Welcome(pb::Welcome {
        replica_id: "manager-0".into(),
        version: "0.1.0".into(),
    })
}

fn go_away() -> FromManager {
    FromManager::GoAway(pb::GoAway {
        reason: "shutting down".into(),
        retry_after_ms: 5000,
    })
}

fn legacy() -> pb::WolEvent {
    pb::WolEvent {
        mac_address: TARGET.to_string(),
        node_name: "node-1".into(),
        source_ip: "10.77.0.1".into(),
        source_port: 40009,
        packet_size: 102,
        ..pb::WolEvent::default()
    }
}

fn folder(target: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "corpus", target]
        .iter()
        .collect()
}

#[test]
fn the_corpus_is_what_the_vectors_generate() {
    for (target, seeds, _) in targets() {
        let folder = folder(target);
        if std::env::var_os("WOL_WRITE_CORPUS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &seeds {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        let files: BTreeSet<String> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(files.iter().eq(seeds.keys()), "{target}: {files:?}");
        for (name, bytes) in &seeds {
            let file = fs::read(folder.join(name)).unwrap();
            assert_eq!(&file, bytes, "{target}/{name}");
        }
    }
}

#[test]
fn every_file_of_the_corpus_passes_the_checks_of_its_target() {
    for (target, seeds, check) in targets() {
        let mut files = 0;
        for entry in fs::read_dir(folder(target)).unwrap() {
            check(&fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= seeds.len(), "{target}: {files} files");
    }
}

/// A check that takes any answer for right would keep nothing right.
#[test]
fn every_vector_gets_as_far_as_its_target() {
    for (name, frame) in vectors() {
        let wake = heard(&frame);
        if name != "v16" {
            assert_eq!(wake.target, TARGET, "{name}");
        }
    }
    for (name, bytes) in messages().iter().filter(|(name, _)| name.starts_with('v')) {
        let message = pb::AgentMessage::decode(&**bytes).unwrap();
        let Some(FromAgent::Event(event)) = message.body else {
            panic!("{name} is no event");
        };
        assert!(rpc::wake(&event).is_ok(), "{name}");
    }
}
