//! The machine without its fabrics, as the kernel shows it.

use std::fs;
use std::path::Path;

use baton_engine::{Isa, physical_cores};
use rustix::process::{Resource, getrlimit};

use super::{Finding, finding};

const MIB: u64 = 1 << 20;

pub(super) fn processor() -> Vec<Finding> {
    let nodes = names("/sys/devices/system/node")
        .into_iter()
        .filter(|name| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok()));
    let isa = Isa::detect();
    let kernels = match isa {
        Isa::Portable => format!("{isa}: neither AVX-512-BF16 nor AVX2, so the engine is slow here"),
        _ => isa.to_string(),
    };
    vec![
        finding("cores", physical_cores().to_string()),
        finding("NUMA nodes", nodes.count().max(1).to_string()),
        finding("kernels", kernels),
    ]
}

pub(super) fn memory() -> Vec<Finding> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = number(&info, "MemAvailable:").unwrap_or_default() / 1024;
    let (total, free) = (number(&info, "HugePages_Total:"), number(&info, "HugePages_Free:"));
    let size = number(&info, "Hugepagesize:").unwrap_or_default() / 1024;
    let huge = match total {
        Some(total) if total > 0 => format!("{} of {total} free, of {size} MiB", free.unwrap_or_default()),
        _ => "none reserved: pools lie on ordinary pages, which is slower for large ones".to_owned(),
    };
    let shared = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_default();
    let shared = match chosen(&shared) {
        Some("never" | "deny") => "off: the shm fabric's pools lie on 4 KiB pages".to_owned(),
        Some(mode) => mode.to_owned(),
        None => "unknown".to_owned(),
    };
    vec![
        finding("available", format!("{available} MiB")),
        finding("huge pages", huge),
        finding("THP for shared memory", shared),
        finding("locked memory", locked_memory()),
    ]
}

/// RDMA devices pin what is registered.
fn locked_memory() -> String {
    match getrlimit(Resource::Memlock).current {
        None => "unlimited".to_owned(),
        Some(bytes) => format!(
            "{} MiB: enough for shm and tcp; RDMA devices (efa, verbs) need `ulimit -l unlimited`, or LimitMEMLOCK=infinity",
            bytes / MIB
        ),
    }
}

pub(super) fn devices() -> Vec<Finding> {
    let rdma: Vec<String> = names("/sys/class/infiniband")
        .into_iter()
        .map(|name| {
            let node = fs::read_to_string(format!("/sys/class/infiniband/{name}/device/numa_node"));
            match node.ok().map(|node| node.trim().to_owned()).filter(|node| node != "-1") {
                Some(node) => format!("{name} (NUMA node {node})"),
                None => name,
            }
        })
        .collect();
    let rdma = match &rdma[..] {
        [] => "none: no EFA, InfiniBand or RoCE, so libfabric can use tcp and shm".to_owned(),
        devices => devices.join(", "),
    };
    let gpus = names("/proc/driver/nvidia/gpus").len();
    let gpus = match gpus {
        0 if Path::new("/dev/nvidiactl").exists() => "a driver without a GPU".to_owned(),
        0 => "none".to_owned(),
        count => format!("{count} NVIDIA; Baton does not use them yet"),
    };
    vec![finding("RDMA", rdma), finding("GPU", gpus)]
}

/// Entries of a folder, sorted; none if it is not there.
fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The number behind a word at the start of a line.
fn number(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The word in brackets, which is the setting in force.
fn chosen(settings: &str) -> Option<&str> {
    let (_, rest) = settings.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let info = "MemTotal:       16 kB\nHugePages_Total:       3\nHugepagesize:       2048 kB\n";
        assert_eq!((number(info, "HugePages_Total:"), number(info, "Hugepagesize:")), (Some(3), Some(2048)));
        assert_eq!(number(info, "HugePages_Free:"), None);
        assert_eq!(chosen("always within_size advise [never] deny force\n"), Some("never"));
        assert_eq!(chosen(""), None);
    }
}
