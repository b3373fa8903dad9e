//! Which network devices UCX may use: the interface that has the operator's address, and RDMA ports.
//!
//! UCX chooses by device, not by address, and by default listens on every interface that is up. What listens lets whoever
//! reaches it write into this process, so it must be where the operator said, and nowhere else.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::ptr;

use super::sys;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// Where the address lies in a `sockaddr_in` and a `sockaddr_in6`.
const V4_OFFSET: usize = 4;
const V6_OFFSET: usize = 8;

/// The devices for peers that reach us at `ip`, by UCX's names.
pub(super) fn for_address(ip: IpAddr) -> Vec<String> {
    let mut devices = having(ip, &interfaces());
    devices.extend(rdma_ports(Path::new("/sys/class/infiniband")));
    devices
}

fn having(ip: IpAddr, interfaces: &[(String, IpAddr)]) -> Vec<String> {
    // All of 127.0.0.0/8 is the loopback interface's, though it states one address.
    let same = |address: IpAddr| address == ip || (ip.is_loopback() && address.is_loopback());
    let names = interfaces.iter().filter(|(_, address)| same(*address)).map(|(name, _)| name.as_str());
    names.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
}

/// `DEVICE:PORT` of each port below a folder of devices.
fn rdma_ports(devices: &Path) -> Vec<String> {
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let ports = |device: String| {
        let ports = names(&devices.join(&device).join("ports"));
        ports.into_iter().map(move |port| format!("{device}:{port}"))
    };
    names(devices).into_iter().flat_map(ports).collect()
}

/// Names and addresses; an interface appears as often as it has addresses.
fn interfaces() -> Vec<(String, IpAddr)> {
    let mut list = ptr::null_mut();
    // SAFETY: it writes the head of a list, or fails.
    if unsafe { sys::getifaddrs(&mut list) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list, which is freed below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if let Some(address) = address(entry.ifa_addr) {
            // SAFETY: every entry has a name that ends with NUL.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) };
            found.push((name.to_string_lossy().into_owned(), address));
        }
    }
    // SAFETY: the list came from getifaddrs and is freed once; everything kept of it was copied.
    unsafe { sys::freeifaddrs(list) };
    found
}

fn address(socket: *const sys::sockaddr) -> Option<IpAddr> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: every address starts with its family.
    match unsafe { (*socket).sa_family } {
        AF_INET => {
            // SAFETY: a sockaddr_in has four bytes of address there.
            let bytes = unsafe { ptr::read_unaligned(socket.byte_add(V4_OFFSET).cast::<[u8; 4]>()) };
            Some(Ipv4Addr::from(bytes).into())
        }
        AF_INET6 => {
            // SAFETY: a sockaddr_in6 has sixteen bytes of address there.
            let bytes = unsafe { ptr::read_unaligned(socket.byte_add(V6_OFFSET).cast::<[u8; 16]>()) };
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_interface_of_the_address_is_taken() {
        let interfaces = [("lo", "127.0.0.1"), ("lo", "::1"), ("eth0", "10.0.0.1"), ("eth0", "fd00::1")];
        let interfaces = interfaces.map(|(name, address)| (name.to_owned(), ip(address)));
        for (address, name) in
            [("127.0.0.1", "lo"), ("127.0.0.9", "lo"), ("10.0.0.1", "eth0"), ("fd00::1", "eth0")]
        {
            assert_eq!(having(ip(address), &interfaces), [name], "{address}");
        }
        assert!(having(ip("192.0.2.77"), &interfaces).is_empty());
    }

    #[test]
    fn every_port_of_every_device_is_named() {
        let folder = std::env::temp_dir().join(format!("baton-rdma-ports-{}", std::process::id()));
        for port in ["mlx5_1/ports/1", "mlx5_0/ports/2", "mlx5_0/ports/1"] {
            fs::create_dir_all(folder.join(port)).unwrap();
        }
        let ports = rdma_ports(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(ports, ["mlx5_0:1", "mlx5_0:2", "mlx5_1:1"]);
        assert!(rdma_ports(&folder).is_empty());
    }

    #[test]
    fn the_machine_has_a_loopback_interface() {
        assert!(for_address(ip("127.0.0.1")).contains(&"lo".to_owned()), "{:?}", interfaces());
    }
}
