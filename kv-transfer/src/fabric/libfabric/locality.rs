//! Which NICs are near the memory that they will read and write, from what the kernel says.

use std::path::Path;

/// By PCI address.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";
const STATUS: &str = "/proc/self/status";

/// The NUMA node of a PCI device, `DDDD:BB:DD.F`; `None` where the machine has none.
pub(super) fn numa_node(pci: &str) -> Option<u32> {
    numa_node_in(Path::new(PCI_DEVICES), pci)
}

fn numa_node_in(devices: &Path, pci: &str) -> Option<u32> {
    // -1, which is no node, says that the firmware does not know.
    std::fs::read_to_string(devices.join(pci).join("numa_node")).ok()?.trim().parse().ok()
}

/// The NUMA nodes from which this process may have memory, as its cpuset has it; empty if that is not known.
pub(super) fn memory_nodes() -> Vec<u32> {
    let status = std::fs::read_to_string(STATUS).unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Mems_allowed_list:"));
    list.map(|list| parse_list(list.trim())).unwrap_or_default()
}

/// `0-1,4` as the kernel writes lists.
fn parse_list(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Which of the devices, by the node of each, are near the memory; all of them if none is, or nothing is known.
pub(super) fn near(devices: &[Option<u32>], memory: &[u32]) -> Vec<usize> {
    let is_near = |index: &usize| devices[*index].is_none_or(|node| memory.contains(&node));
    let near: Vec<usize> = (0..devices.len()).filter(is_near).collect();
    if near.is_empty() { (0..devices.len()).collect() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(parse_list("0-1,4"), [0, 1, 4]);
        assert_eq!(parse_list("7"), [7]);
        assert!(parse_list("").is_empty());
        assert!(!memory_nodes().is_empty(), "this process has memory");
    }

    #[test]
    fn the_node_of_a_device_is_what_the_kernel_says() {
        let devices = tempfile::tempdir().unwrap();
        for (pci, text) in [("0000:10:1b.0", "1\n"), ("0000:00:05.0", "-1\n")] {
            std::fs::create_dir(devices.path().join(pci)).unwrap();
            std::fs::write(devices.path().join(pci).join("numa_node"), text).unwrap();
        }
        let nodes = ["0000:10:1b.0", "0000:00:05.0", "0000:ff:00.0"];
        assert_eq!(nodes.map(|pci| numa_node_in(devices.path(), pci)), [Some(1), None, None]);
    }

    #[test]
    fn devices_of_our_nodes_are_taken_and_all_if_there_is_none() {
        let p5 = [Some(0), Some(0), Some(1), Some(1)];
        assert_eq!(near(&p5, &[1]), [2, 3]);
        assert_eq!(near(&p5, &[0, 1]), [0, 1, 2, 3]);
        assert_eq!(near(&p5, &[7]), [0, 1, 2, 3], "far is better than nothing");
        assert_eq!(near(&[None, Some(3)], &[0]), [0], "what is not known is not far");
    }
}
