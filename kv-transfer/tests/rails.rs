//! Several endpoints of libfabric's tcp provider as rails: how the load is shared, and what happens when one fails under it.
//!
//! A rail is made to fail in a network namespace of the test's own: its connections are broken, or its address is taken away so
//! that nothing comes back. Where the kernel or the tools do not allow that, those tests say so and end.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use baton_kv_transfer::{RailStats, TransferStats};
use support::{Order, Peer, Reply, Setup, World, block_on, fill, pairs, shape, support_is_here};

const LONG: Duration = Duration::from_secs(30);
const IN_NAMESPACE: &str = "BATON_KV_TEST_NETNS";
/// Before enabling: loopback up, an address for each end of each of three rails.
const CABLING: &str = "ip link set lo up && for r in 1 2 3; do for e in 1 2; do ip addr add 10.77.$r.$e/32 dev lo || exit; done; done";

support::peer_process!();

fn on(rails: &str, blocks: u32, block_bytes: u32) -> Setup {
    Setup { blocks, block_bytes, ..shape(&format!("libfabric:tcp@{rails}")) }
}

fn shell(script: &str) {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {said}");
}

/// Runs a test of this file in a network namespace with rails 10.77.R.1 here and 10.77.R.2 for the peer.
fn in_namespace(name: &str, test: impl Future<Output = ()>) {
    if !support_is_here("libfabric") {
        return;
    }
    if std::env::var_os(IN_NAMESPACE).is_some() {
        shell(CABLING);
        return block_on(test);
    }
    let possible = Command::new("unshare").args(["-rn", "sh", "-c", &format!("{CABLING} && ss -V")]).output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return eprintln!("not run: `unshare -rn`, `ip` and `ss` are needed to break a rail");
    }
    let mut command = Command::new("unshare");
    command.arg("-rn").arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", name, "--nocapture"]).env(IN_NAMESPACE, "1").output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Sends some blocks to the same ones of the peer.
async fn send(world: &World, id: u64, blocks: &[u32]) {
    let ticket = world.peer.expect(id, blocks, LONG).await;
    let outgoing = world.node.open(&ticket).await.unwrap();
    outgoing.push(0..world.setup.layers, &pairs(blocks)).unwrap();
    outgoing.finish().await.unwrap_or_else(|error| panic!("transfer {id}: {error}"));
    world.peer.must(Order::Wait { id }).await;
}

/// Keeps four transfers under way for so long, with checksums of everything; says how many there were.
async fn load(world: &World, length: Duration) -> u64 {
    let (started, blocks) = (Instant::now(), 12);
    let lane = async |lane: u32| {
        let mine: Vec<u32> = (lane * blocks..(lane + 1) * blocks).collect();
        fill(&world.node.pool(), &world.setup.geometry(), &mine, lane.into());
        let mut count = 0;
        while started.elapsed() < length {
            send(world, u64::from(lane) << 32 | count, &mine).await;
            count += 1;
        }
        let check = Order::Check { blocks: mine.clone(), tokens: blocks, seed: lane.into() };
        assert!(matches!(world.peer.must(check).await, Reply::Wrong(None)), "lane {lane}");
        count
    };
    let (a, b, c, d) = tokio::join!(lane(0), lane(1), lane(2), lane(3));
    a + b + c + d
}

fn shares(rails: &[RailStats]) -> Vec<u64> {
    let total: u64 = rails.iter().map(|rail| rail.bytes).sum();
    rails.iter().map(|rail| rail.bytes * 100 / total.max(1)).collect()
}

#[test]
fn the_load_is_shared_whatever_the_number_of_rails_at_each_end() {
    if !support_is_here("libfabric") {
        return;
    }
    let ends = [
        ("127.0.0.2,127.0.0.3,127.0.0.4", "127.0.0.5,127.0.0.6,127.0.0.7", 3),
        ("127.0.0.2,127.0.0.3,127.0.0.4", "127.0.0.5", 3),
        ("127.0.0.2", "127.0.0.5,127.0.0.6,127.0.0.7", 1),
        ("127.0.0.2,127.0.0.3", "127.0.0.5,127.0.0.6,127.0.0.7", 2),
    ];
    block_on(async {
        for (here, there, rails) in ends {
            let world = World::with_peer(on(here, 48, 256 << 10), &on(there, 48, 256 << 10)).await;
            load(&world, Duration::from_millis(300)).await;
            let carried = world.node.rails();
            assert_eq!(carried.len(), rails);
            let least = 100 / rails as u64 / 3;
            assert!(shares(&carried).iter().all(|&share| share > least), "{carried:?}");
            world.at_rest().await;
        }
    });
}

#[test]
fn connecting_ahead_uses_each_path_once() {
    if !support_is_here("libfabric") {
        return;
    }
    block_on(async {
        for there in ["127.0.0.5,127.0.0.6,127.0.0.7", "127.0.0.5"] {
            let world = World::with_peer(on("127.0.0.2,127.0.0.3", 8, 4096), &on(there, 8, 4096)).await;
            let (endpoint, node_id) = world.peer.describe().await;
            world.node.connect(&endpoint, &node_id).await.unwrap();
            let carried = world.node.rails();
            assert!(carried.iter().all(|rail| rail.bytes > 0), "{carried:?}");
        }
    });
}

#[test]
fn a_rail_that_there_is_not_is_refused_by_its_name() {
    if !support_is_here("libfabric") {
        return;
    }
    block_on(async {
        for (rail, says) in [("203.0.113.7", "203.0.113.7; name others"), ("eth77", "no device `eth77`")] {
            let refused = baton_kv_transfer::TransferNode::start(support::config(&on(rail, 8, 4096))).await;
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    });
}

async fn wired(layers: u32, block_bytes: u32) -> World {
    let rails = |end: u32| (1..=3).map(|rail| format!("10.77.{rail}.{end}")).collect::<Vec<_>>().join(",");
    let end = |end: u32| Setup { layers, ..on(&rails(end), 48, block_bytes) };
    World::with_peer(end(1), &end(2)).await
}

/// Under load, breaks the third rail: none of the transfers fails, and the others carry what comes.
async fn fails_under_load(world: &World, breaking: &'static str, length: Duration) -> TransferStats {
    load(world, Duration::from_millis(300)).await;
    let breaks = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tokio::task::spawn_blocking(|| shell(breaking)).await.unwrap();
    };
    let (sent, ()) = tokio::join!(load(world, length), breaks);
    let before = world.node.rails();
    load(world, Duration::from_millis(300)).await;
    let after = world.node.rails();
    let stats = world.node.stats();
    assert!(sent > 4 && stats.outgoing_failed == 0, "{sent} were sent, {stats:?}");
    assert_eq!(before[2].bytes, after[2].bytes, "the broken rail carries nothing any more");
    assert!((0..2).all(|rail| after[rail].bytes > before[rail].bytes), "{before:?} {after:?}");
    world.at_rest().await;
    stats
}

#[test]
fn a_rail_whose_connections_break_under_load_costs_no_transfer() {
    in_namespace("a_rail_whose_connections_break_under_load_costs_no_transfer", async {
        // What is under way is stopped first, so that there is something to fail.
        let breaking = "ip addr del 10.77.3.2/32 dev lo; sleep 0.3; ss -K dst 10.77.3.2; ss -K src 10.77.3.2";
        // Straight into the blocks, and by way of chunks.
        for (layers, block_bytes) in [(6, 256 << 10), (48, 8 << 10)] {
            let world = wired(layers, block_bytes).await;
            let stats = fails_under_load(&world, breaking, Duration::from_secs(2)).await;
            assert!(stats.writes_repeated > 0 && stats.lost_paths == 1, "{stats:?}");
            assert!(world.node.rails()[2].open, "other peers may be reached over it");
            drop(world);
            shell("ip addr add 10.77.3.2/32 dev lo");
        }
    });
}

#[test]
fn a_rail_that_falls_silent_under_load_is_closed_and_costs_no_transfer() {
    in_namespace("a_rail_that_falls_silent_under_load_is_closed_and_costs_no_transfer", async {
        let world = wired(6, 256 << 10).await;
        let stats =
            fails_under_load(&world, "ip addr del 10.77.3.2/32 dev lo", Duration::from_secs(12)).await;
        assert!(stats.writes_repeated > 0, "{stats:?}");
        let open: Vec<bool> = world.node.rails().iter().map(|rail| rail.open).collect();
        assert_eq!(open, [true, true, false]);
        // Whoever connects now does so over the rails that are left.
        let other = Peer::start(&on("10.77.1.2,10.77.2.2", 8, 256 << 10)).await;
        let ticket = other.expect(1, &[3], LONG).await;
        fill(&world.node.pool(), &world.setup.geometry(), &[0], 7);
        let outgoing = world.node.open(&ticket).await.unwrap();
        outgoing.push(0..world.setup.layers, &[(0, 0)]).unwrap();
        outgoing.finish().await.unwrap();
        other.must(Order::Wait { id: 1 }).await;
    });
}
