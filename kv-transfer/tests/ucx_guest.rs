//! UCX is a guest in the process: it leaves signals and the C library's code as they were. Alone in its process, because both are the process's.

use std::fs;

use baton_kv_transfer::{
    FabricSpec, KvDtype, KvGeometry, KvLayout, KvOrder, KvPlacement, TensorParallel, TransferConfig,
    TransferNode,
};

/// Signals with a handler, as the kernel has them.
fn handled_signals() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with("SigCgt:")).expect("a mask of handled signals").to_owned()
}

/// KiB of the C library's code that this process changed.
fn patched_kib() -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let mut in_code = false;
    let mut found = None;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !first.ends_with(':') {
            in_code = second.contains('x') && line.contains("/libc.so");
        } else if in_code && first == "Private_Dirty:" {
            *found.get_or_insert(0) += second.parse::<u64>().unwrap();
        }
    }
    found.expect("the C library is mapped")
}

#[test]
fn signals_and_the_c_library_are_left_alone() {
    if std::env::var_os("BATON_TEST_SKIP_UCX").is_some_and(|skip| skip == "1") {
        return;
    }
    let path = std::env::var_os("BATON_TEST_UCX");
    let path = path.expect("BATON_TEST_UCX names libucp.so.0 (BATON_TEST_SKIP_UCX=1 skips)");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let before = (handled_signals(), patched_kib());
    let layout = KvLayout {
        layers: 2,
        kv_heads: 1,
        head_dim: 64,
        block_tokens: 16,
        dtype: KvDtype::Bf16,
        placement: KvPlacement::Joined,
        order: KvOrder::Hnd,
        tensor_parallel: TensorParallel::SINGLE,
    };
    let geometry = KvGeometry { layout, blocks: 8 };
    let mut config = TransferConfig::new(FabricSpec::Ucx { transports: None }, geometry, "test");
    config.ucx_path = Some(path.into());
    let node = runtime.block_on(TransferNode::start(config)).unwrap();
    assert_eq!((handled_signals(), patched_kib()), before);
    assert_eq!(node.fabric().name, "ucx");
    runtime.block_on(node.shutdown());
}
