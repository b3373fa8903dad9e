//! What the libfabric fabric says when things are not as EFA needs them, tried on the strict provider of the tests.

mod support;

use std::time::Duration;

use baton_kv_transfer::{FabricError, RawFabric, StartError, TransferNode};
use support::{Order, Peer, Setup, World, block_on, config, first_wrong, shape, strict};

const LONG: Duration = Duration::from_secs(30);
const STRICT: &str = "libfabric:strict";

support::peer_process!();

/// Runs a test in a process of its own, with the strict provider; `after` looks at the provider's log.
fn alone(name: &str, environment: &[(&str, &str)], test: impl Future<Output = ()>, after: impl FnOnce(&str)) {
    if std::env::var_os("BATON_TEST_SKIP_LIBFABRIC").is_some_and(|skip| skip == "1") {
        return;
    }
    if strict::is_here() { block_on(test) } else { after(&strict::run_alone(name, environment)) }
}

async fn cannot_start(fabric: &str) -> String {
    let refused = TransferNode::start(config(&shape(fabric))).await;
    let Err(error @ (StartError::NoProvider { .. } | StartError::Fabric(_))) = refused else {
        panic!("{fabric} should not start");
    };
    error.to_string()
}

#[test]
fn another_provider_is_never_taken_for_the_one_asked_for() {
    let test = async {
        // No machine that builds this has an EFA; libfabric would run over tcp or shm without a word.
        for efa in ["libfabric:efa", "libfabric:efa-direct"] {
            let error = cannot_start(efa).await;
            for part in [
                "`efa",
                "no device",
                "endpoints were found of: ",
                "tcp",
                "strict",
                "loaded: ",
                "RDMA devices",
            ] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
        for (name, part) in [
            ("libfabric:STRICT", "no provider of exactly this name"),
            ("libfabric:tc", "no provider of exactly this name"),
            ("libfabric:udp", "not connectionless ones with one-sided writes"),
        ] {
            let error = cannot_start(name).await;
            assert!(error.contains(part), "{name}: {error}");
        }
        let node = TransferNode::start(config(&shape(STRICT))).await.unwrap();
        assert_eq!(node.fabric().provider, "strict");
        node.shutdown().await;
    };
    alone("another_provider_is_never_taken_for_the_one_asked_for", &[], test, |_| ());
}

#[test]
fn writes_in_software_are_refused_at_start() {
    let test = async {
        let error = cannot_start(STRICT).await;
        assert!(error.contains("emulated in software") && error.contains("RDMA write"), "{error}");
    };
    let environment = [("BATON_STRICT_EMULATED_WRITE", "1")];
    alone("writes_in_software_are_refused_at_start", &environment, test, |_| ());
}

#[test]
fn peers_over_two_providers_are_told_apart_though_their_addresses_look_alike() {
    let test = async {
        let world = World::with_peer(shape("libfabric:tcp"), &shape("libfabric:tcp;ofi_rxm")).await;
        let ticket = world.peer.expect(1, &[1], LONG).await;
        let error = world.node.open(&ticket).await.unwrap_err().to_string();
        let part = "fabric is `libfabric:tcp` here and `libfabric:tcp;ofi_rxm` there";
        assert!(error.contains(part), "{error}");
    };
    let name = "peers_over_two_providers_are_told_apart_though_their_addresses_look_alike";
    alone(name, &[], test, |_| ());
}

/// A receiver dies; its successor gets the same GID and queue pair number, with another key.
#[test]
fn a_successor_under_the_same_number_is_another_peer() {
    let test = async {
        let setup = Setup { fabric: STRICT.to_owned(), ..shape(STRICT) };
        let number = [("BATON_STRICT_QPN", "41007")];
        let node = TransferNode::start(config(&setup)).await.unwrap();
        let mut stale: Option<Vec<u8>> = None;
        for round in 0..3u64 {
            let peer = Peer::start_with(&setup, &number).await;
            if let Some(ticket) = stale.take() {
                node.open(&ticket).await.expect_err("a ticket of the former life");
            }
            support::fill(&node.pool(), &setup.geometry(), &[7, 8], round);
            let ticket = peer.expect(round, &[1, 2], LONG).await;
            let outgoing = node.open(&ticket).await.unwrap();
            outgoing.push(0..setup.layers, &[(7, 0), (8, 1)]).unwrap();
            outgoing.finish().await.unwrap();
            peer.must(Order::Wait { id: round }).await;
            let check = Order::Check { blocks: vec![1, 2], tokens: 2, seed: round };
            assert!(matches!(peer.must(check).await, support::Reply::Wrong(None)));
            stale = Some(peer.expect(100 + round, &[3], LONG).await);
            peer.end().await;
        }
        assert_eq!(first_wrong(&node.pool(), &setup.geometry(), &[7, 8], 2), None);
        node.shutdown().await;
    };
    let after = |log: &str| {
        strict::assert_obeyed(log);
        assert!(log.lines().filter(|line| line.contains("enabled: qpn 41007 ")).count() == 3, "{log}");
    };
    alone("a_successor_under_the_same_number_is_another_peer", &[], test, after);
}

async fn raw() -> RawFabric {
    RawFabric::open(&config(&shape(STRICT))).await.unwrap()
}

fn reason(outcome: Result<(), FabricError>) -> String {
    outcome.expect_err("the write fails").reason
}

#[test]
fn a_peer_that_is_gone_is_named_so() {
    let test = async {
        let (mut sender, mut receiver) = (raw().await, raw().await);
        sender.connect(receiver.accept(&sender.address()).unwrap()).unwrap();
        drop(receiver);
        let text = reason(sender.write(&[(0, 0, 4096)]));
        assert!(text.contains("the peer never responded") && text.contains("provider's code 15"), "{text}");
    };
    alone("a_peer_that_is_gone_is_named_so", &[], test, strict::assert_obeyed);
}

/// Reads are split, described and counted as writes are.
#[test]
fn reads_obey_too() {
    let test = async {
        let (mut reader, mut peer) = (raw().await, raw().await);
        reader.connect(peer.accept(&reader.address()).unwrap()).unwrap();
        let serving = std::thread::spawn(move || peer.receive(1));
        let pieces: Vec<_> = (0..300).map(|i| (i * 4096, i * 4096, 4096)).chain([(0, 0, 1 << 20)]).collect();
        reader.read(&pieces).unwrap();
        reader.write(&[(0, 0, 1)]).unwrap();
        serving.join().unwrap().unwrap();
    };
    let after = |log: &str| {
        strict::assert_obeyed(log);
        strict::assert_hard(log);
    };
    alone("reads_obey_too", &[("BATON_STRICT_MAX_RMA_BYTES", "65536")], test, after);
}

/// The strict provider's `UnknownInitiator` bites through libfabric and through our fabric, too.
#[test]
fn a_stranger_is_told_that_the_target_does_not_know_it() {
    let test = async {
        let (mut known, mut stranger, mut receiver) = (raw().await, raw().await, raw().await);
        let offer = receiver.accept(&known.address()).unwrap();
        stranger.connect(offer.clone()).unwrap();
        known.connect(offer).unwrap();
        let polling = std::thread::spawn(move || receiver.receive(1));
        let text = reason(stranger.write(&[(0, 0, 4096)]));
        known.write(&[(0, 0, 4096)]).unwrap();
        polling.join().unwrap().unwrap();
        assert!(text.contains("does not know this worker's address"), "{text}");
    };
    let after = |log: &str| assert!(log.contains("rule=UnknownInitiator"), "{log}");
    alone("a_stranger_is_told_that_the_target_does_not_know_it", &[], test, after);
}
