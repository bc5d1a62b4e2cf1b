//! Sets of IP addresses by their networks: [`IpList`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// IP networks, such as `10.0.0.0/8` and `2001:db8::1`, for quick look-ups however many there are.
///
/// An IPv4 address that is written as an IPv6 one (`::ffff:192.0.2.1`) is that IPv4 address, here
/// and in a look-up. Networks of one family never hold addresses of the other.
///
/// ```
/// use network_system_core::config::IpList;
///
/// let list: IpList = "10.0.0.0/8,2001:db8::/32,192.0.2.1".parse().unwrap();
/// assert!(list.contains("10.1.2.3".parse().unwrap()));
/// assert!(list.contains("::ffff:192.0.2.1".parse().unwrap()));
/// assert!(!list.contains("192.0.2.2".parse().unwrap()));
/// ```
#[derive(Clone, Default)]
pub struct IpList {
    /// As they were given.
    nets: Vec<IpNet>,
    /// First and last addresses, in order and apart.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Text that is no IP network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an IP network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1{hint}")]
pub struct IpListError {
    text: String,
    hint: String,
}

impl IpList {
    /// This machine itself: `127.0.0.0/8` and `::1`.
    #[must_use]
    pub fn loopback() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
        Self::of(vec![v4.into(), v6.into()])
    }

    fn of(nets: Vec<IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in &nets {
            match net {
                IpNet::V4(net) => v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        merge(&mut v4);
        merge(&mut v6);
        Self { nets, v4, v6 }
    }

    /// The list of these networks, each as in `10.0.0.0/8` or `192.0.2.1`.
    ///
    /// # Errors
    /// Names the first that is none.
    pub fn new<S: AsRef<str>>(nets: impl IntoIterator<Item = S>) -> Result<Self, IpListError> {
        let nets: Result<Vec<IpNet>, _> = nets.into_iter().map(|net| parse(net.as_ref())).collect();
        nets.map(Self::of)
    }

    /// Whether no address is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// Whether this address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => holds(&self.v4, address.into()),
            IpAddr::V6(address) => holds(&self.v6, address.into()),
        }
    }
}

/// Puts ranges in order, and those together that overlap.
fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlap = next.0 <= last.1;
        if overlap {
            last.1 = last.1.max(next.1);
        }
        overlap
    });
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    let range = behind.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|(_, last)| address <= *last)
}

/// One network, or one address.
fn parse(text: &str) -> Result<IpNet, IpListError> {
    let wrong = |hint: String| IpListError {
        text: text.to_owned(),
        hint,
    };
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| wrong(String::new()))?,
    };
    if net.addr() != net.network() {
        // what did they mean: the address, or the network around it?
        let hint = format!(": write {} or {}", net.trunc(), net.addr());
        return Err(wrong(hint));
    }
    Ok(canonical(net))
}

/// A network of one address as that address.
fn shown(net: &IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

/// IPv4 networks that are written as IPv6 ones as what they are.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let address = v6.addr().to_ipv4_mapped();
    let prefix = v6.prefix_len().checked_sub(96);
    match (address, prefix) {
        (Some(address), Some(prefix)) => Ipv4Net::new(address, prefix).map_or(net, IpNet::V4),
        _ => net,
    }
}

impl FromStr for IpList {
    type Err = IpListError;

    /// Networks with commas between them.
    fn from_str(text: &str) -> Result<Self, IpListError> {
        Self::new(text.split(',').filter(|net| !net.is_empty()))
    }
}

impl fmt::Display for IpList {
    /// As it is parsed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, net) in self.nets.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}", shown(net))?;
        }
        Ok(())
    }
}

impl fmt::Debug for IpList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpList({self})")
    }
}

impl PartialEq for IpList {
    fn eq(&self, other: &Self) -> bool {
        (&self.v4, &self.v6) == (&other.v4, &other.v6)
    }
}

impl Eq for IpList {}

impl Serialize for IpList {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.nets.iter().map(shown))
    }
}

impl<'de> Deserialize<'de> for IpList {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let nets = Vec::<String>::deserialize(d)?;
        Self::new(nets).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> IpList {
        text.parse().unwrap()
    }

    #[track_caller]
    fn holds(list: &IpList, addresses: &[&str]) -> bool {
        let held: Vec<bool> = addresses
            .iter()
            .map(|address| list.contains(address.parse().unwrap()))
            .collect();
        assert!(held.iter().all(|one| *one == held[0]), "{held:?}");
        held[0]
    }

    #[test]
    fn networks_hold_their_first_and_last_address() {
        let some = list("10.1.0.0/16,192.0.2.1,2001:db8::/32,10.1.2.0/24,10.2.0.0/16");
        assert!(holds(
            &some,
            &[
                "10.1.0.0",
                "10.1.255.255",
                "10.2.0.0",
                "10.2.255.255",
                "192.0.2.1",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
            ]
        ));
        assert!(!holds(
            &some,
            &[
                "10.0.255.255",
                "10.3.0.0",
                "192.0.2.0",
                "192.0.2.2",
                "2001:db7:ffff::",
                "2001:db9::",
                "::"
            ]
        ));
        assert!(!holds(&IpList::default(), &["0.0.0.0", "::"]));
        assert!(holds(&list("0.0.0.0/0"), &["0.0.0.0", "255.255.255.255"]));
        assert!(holds(
            &IpList::loopback(),
            &["127.0.0.1", "127.9.9.9", "::1"]
        ));
        assert!(!holds(
            &IpList::loopback(),
            &["126.0.0.1", "128.0.0.1", "::2"]
        ));
    }

    /// Nobody gets through a list by another spelling of his address, or because the other family
    /// is on it.
    #[test]
    fn a_mapped_address_is_the_address() {
        let v4 = list("192.0.2.0/24");
        assert!(holds(
            &v4,
            &["192.0.2.9", "::ffff:192.0.2.9", "::ffff:c000:209"]
        ));
        assert!(!holds(
            &v4,
            &["::192.0.2.9", "::ffff:0:192.0.2.9", "64:ff9b::192.0.2.9"]
        ));
        let mapped = list("::ffff:192.0.2.0/120");
        assert_eq!(mapped, v4);
        let v6 = list("::/0");
        assert!(holds(&v6, &["::1", "2001:db8::", "fe80::1"]));
        assert!(!holds(&v6, &["192.0.2.9", "::ffff:192.0.2.9"]));
    }

    #[test]
    fn what_is_no_network_is_named() {
        for (text, words) in [
            ("10.0.0.0/33", "'10.0.0.0/33' is not an IP network"),
            ("localhost", "'localhost'"),
            ("10.0.0.0/8,x", "'x'"),
            ("10.0.0.5/24", "write 10.0.0.0/24 or 10.0.0.5"),
            ("10.0.0", "'10.0.0'"),
            ("fe80::1%1", "'fe80::1%1'"),
        ] {
            let error = text.parse::<IpList>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let text = "10.0.0.0/8,192.0.2.1,2001:db8::/32";
        assert_eq!(list(text).to_string(), text);
    }
}
