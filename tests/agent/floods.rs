//! More packets than an agent reports, or even reads.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use kubevirt_wol::{
    cli::AgentArgs,
    mac::MacAddr,
    packet::MagicPacket,
    rpc::{self, pb},
    wakeable::WakeableMacs,
};

use crate::bed::{Agent, args, free_address, free_port, get, magic, millis, settings};
use crate::fake_manager::FakeManager;

/// The packet for the stranger with this number.
fn stranger(number: u32) -> Vec<u8> {
    let [a, b, c, d] = number.to_be_bytes();
    let target = MacAddr::new([0x02, 0x99, a, b, c, d]);
    MagicPacket::new(target, &[]).unwrap().to_bytes()
}

fn wakeable(last: u8) -> WakeableMacs {
    WakeableMacs::of(&[MacAddr::new([0x52, 0x54, 0, 0, 0, last])])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_manager_says_is_wakeable_is_reported_first() {
    let (address, port) = (free_address(), free_port());
    let mut manager = FakeManager::start(address).await;
    let _agent = Agent::start(args(address, &[port]));
    let (_, mut session) = manager.accept().await;
    session.configure(settings(1, &[port])).await;
    session.prefer(rpc::wakeable_macs(&wakeable(1))).await;
    let unknown_kind = pb::WakeableMacs {
        kind: 77,
        ..rpc::wakeable_macs(&wakeable(2))
    };
    session.prefer(unknown_kind).await;
    tokio::time::sleep(millis(200)).await;
    // What is heard while no manager is there waits together.
    drop((session, manager));
    tokio::time::sleep(millis(200)).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in [stranger(1), magic(2), magic(1), stranger(2)] {
        socket.send_to(&packet, ("127.0.0.1", port)).unwrap();
    }
    let mut manager = FakeManager::start(address).await;
    let (_, mut session) = manager.accept().await;
    let mut heard = Vec::new();
    for _ in 0..4 {
        let mac = session.event().await.mac;
        heard.push((mac[1], mac[5]));
    }
    let (vm, other) = (0x54, 0x99);
    assert_eq!(heard, [(vm, 1), (other, 1), (vm, 2), (other, 2)]);
}

/// What `/metrics` says, summed over the series that begin so.
async fn sum(admin: SocketAddr, prefix: &str) -> u64 {
    let text = get(admin, "/metrics").await;
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(prefix)?;
        rest.rsplit_once(' ')?.1.parse::<u64>().ok()
    });
    values.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_packet_that_the_kernel_drops_is_counted_without_waiting_for_another() {
    let (address, admin, port) = (free_address(), free_address(), free_port());
    let mut manager = FakeManager::start(address).await;
    let _agent = Agent::start(AgentArgs {
        admin_bind: Some(admin),
        ..args(address, &[port])
    });
    let (_, mut session) = manager.accept().await;
    session.configure(settings(1, &[port])).await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let dropped = "kubevirt_wol_agent_kernel_dropped_packets_total{socket=\"udp\"}";
    let (began, mut sent) = (Instant::now(), 0_u32);
    while sum(admin, dropped).await == 0 && began.elapsed() < Duration::from_secs(20) {
        for _ in 0..20_000 {
            socket.send(&stranger(sent)).unwrap();
            sent += 1;
        }
    }
    tokio::time::sleep(millis(500)).await;
    let drops = sum(admin, dropped).await;
    let heard = sum(admin, "kubevirt_wol_agent_packets_total{carrier=\"udp\"").await;
    assert!(drops > 0, "{sent} packets did not overrun it");
    assert_eq!(heard + drops, u64::from(sent), "each is heard or counted");
}
