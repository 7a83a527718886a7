//! Which names this server answers to. Any site can point a name of its own here (DNS rebinding), and its pages would then be
//! of one origin with this one's; but their requests still name that site.

use std::net::{IpAddr, Ipv6Addr};

/// Whom a request can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address, IPv4 where it is one in IPv6's form.
    Address(IpAddr),
    /// A name in lower case, without a dot at its end.
    Name(String),
}

/// Whom requests may name.
pub struct Hosts {
    listening: IpAddr,
    others: Vec<Host>,
}

impl Hosts {
    /// Localhost, the addresses that are listened on, and `others`.
    pub fn new(listening: IpAddr, others: Vec<Host>) -> Self {
        Self { listening, others }
    }

    /// Whether a request that arrived at the address `local` may name this `authority`, a host perhaps with a port; `None`
    /// where that is none. The port is free: forwarding changes it.
    pub fn allow(&self, authority: &str, local: IpAddr) -> Option<bool> {
        let host = parse(authority)?;
        let own = match &host {
            Host::Address(ip) => {
                ip.is_loopback() || [local, self.listening].map(|ip| ip.to_canonical()).contains(ip)
            }
            Host::Name(name) => name == "localhost",
        };
        Some(own || self.others.contains(&host))
    }
}

/// A `--host-name`: a name or an address without scheme, port and path.
pub fn alone(text: &str) -> Result<Host, String> {
    let host = match text.parse::<Ipv6Addr>() {
        Ok(_) => parse(&format!("[{text}]")),
        Err(_) => parse(text).filter(|_| !text.contains(':')),
    };
    host.ok_or_else(|| "give the name alone, without http://, port and path".to_owned())
}

/// Reads `host[:port]` (RFC 9110, section 7.2).
fn parse(authority: &str) -> Option<Host> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let right = port.is_empty() || (rest.starts_with(':') && port.bytes().all(|b| b.is_ascii_digit()));
    if !right || (!port.is_empty() && port.parse::<u16>().is_err()) {
        return None;
    }
    if authority.starts_with('[') {
        return Some(Host::Address(host.parse::<Ipv6Addr>().ok().map(IpAddr::V6)?.to_canonical()));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Host::Address(ip));
    }
    // A dot at the end says that the name is whole.
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (!name.is_empty() && name.bytes().all(plain)).then_some(Host::Name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_and_addresses_are_answered() {
        let local: IpAddr = [192, 168, 1, 5].into();
        let hosts = Hosts::new(
            [0, 0, 0, 0].into(),
            ["Studio.Local.", "10.0.0.9"].map(|name| alone(name).unwrap()).to_vec(),
        );
        for (authority, expected) in [
            ("localhost", Some(true)),
            ("LOCALHOST:8080", Some(true)),
            ("localhost.:1", Some(true)),
            ("localhost:", Some(true)),
            ("127.0.0.1:8080", Some(true)),
            ("127.1.2.3", Some(true)),
            ("[::1]:8080", Some(true)),
            ("[::ffff:127.0.0.1]", Some(true)),
            ("192.168.1.5:80", Some(true)),
            ("[::ffff:192.168.1.5]", Some(true)),
            ("0.0.0.0:8080", Some(true)),
            ("studio.local:8080", Some(true)),
            ("10.0.0.9", Some(true)),
            ("evil.example", Some(false)),
            ("localhost.evil.example:8080", Some(false)),
            ("127.0.0.1.evil.example", Some(false)),
            ("evil.localhost", Some(false)),
            ("192.168.1.6", Some(false)),
            ("[::2]", Some(false)),
            ("2130706433", Some(false)),
            ("", None),
            (":80", None),
            ("localhost:http", None),
            ("localhost:99999", None),
            ("localhost:80:80", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[localhost]", None),
            ("a@localhost", None),
            ("localhost/", None),
            ("localhost, evil.example", None),
        ] {
            assert_eq!(hosts.allow(authority, local), expected, "{authority}");
        }
    }

    #[test]
    fn a_name_to_allow_stands_alone() {
        assert_eq!(alone("Studio.Local"), Ok(Host::Name("studio.local".to_owned())));
        assert_eq!(alone("fe80::1"), Ok(Host::Address("fe80::1".parse().unwrap())));
        for bad in ["http://studio.local", "studio.local:80", "studio.local/", "[::1]:80", "*", "*.local", ""]
        {
            assert!(alone(bad).is_err(), "{bad}");
        }
    }
}
