//! Which addresses an outbound request may go to: the public ones, and what the deployer opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses that may be connected to: public ones always, others only in the ranges that the deployer named.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    opened: Vec<IpNet>,
}

/// From a list of ranges between commas, as in `127.0.0.0/8,10.1.0.0/16`; empty for none.
impl FromStr for Reach {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
        Ok(Self { opened: ranges.map(str::parse).collect::<Result<_, _>>()? })
    }
}

impl Reach {
    /// Whether a connection to this address may be made.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.opened.iter().any(|range| range.contains(&address)) || is_public(address)
    }
}

/// Whether the address is one of the public internet (IANA special-purpose address registries). An IPv6 address that
/// carries an IPv4 one for a translator is as public as that one.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match nat64(address) {
            Some(embedded) => is_public_v4(embedded),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        // This network, private, loopback; multicast, reserved and broadcast.
        (0 | 10 | 127 | 224.., _, _)
            // Shared address space of carriers.
            | (100, 64..=127, _)
            // Link-local, with the metadata services.
            | (169, 254, _)
            // Private.
            | (172, 16..=31, _)
            | (192, 168, _)
            // Protocol assignments, documentation, 6to4 relays, benchmarks.
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let global_unicast = first & 0xe000 == 0x2000;
    let special = match first {
        // Protocol assignments with Teredo and ORCHID (2001::/23); documentation.
        0x2001 => second < 0x0200 || second == 0x0db8,
        // 6to4: leads to an IPv4 address through somebody's relay.
        0x2002 => true,
        // Documentation.
        0x3fff => second < 0x1000,
        _ => false,
    };
    global_unicast && !special
}

/// The IPv4 address in one of the well-known prefix `64:ff9b::/96` (RFC 6052), which networks with IPv6 alone reach
/// IPv4 hosts by.
fn nat64(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(reach: &Reach, address: &str) -> bool {
        reach.permits(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_in_reach_and_all_others_are_not() {
        let reach = Reach::default();
        for public in [
            "1.1.1.1",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(permitted(&reach, public), "{public}");
        }
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permitted(&reach, inside), "{inside}");
        }
    }

    #[test]
    fn an_opened_range_opens_itself_alone() {
        let reach: Reach = "127.0.0.0/8, 10.1.0.0/16".parse().unwrap();
        assert!(
            permitted(&reach, "127.0.0.1")
                && permitted(&reach, "10.1.2.3")
                && permitted(&reach, "::ffff:127.0.0.1")
        );
        assert!(!permitted(&reach, "10.2.0.1") && !permitted(&reach, "::1"));
        assert!("10.0.0.0".parse::<Reach>().is_err());
    }
}
