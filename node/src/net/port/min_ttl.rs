//! The two socket options of an opening SYN that no crate of this project knows: the least TTL (`IP_MINTTL`) and the
//! least hop limit (`IPV6_MINHOPCOUNT`) that a packet must have for its socket to care.
//!
//! Linux also applies them to ICMP errors. For IPv4 it looks at the TTL of the header that the error quotes: a SYN that died on
//! its way is quoted with a TTL of 0 or 1, so a socket with a greater minimum does not hear of it and stays in SYN_SENT. For
//! IPv6 it looks at the hop limit of the error itself, which is as great as that of any other packet: only a socket that hears
//! nothing at all does not hear of it.
//!
//! What it is not: the rest of the opening SYN; see [`super::connecting`].

use std::io;

use socket2::Socket;

/// Whether this system has the options.
pub(super) const SUPPORTED: bool = cfg!(target_os = "linux");

/// Sets the least TTL or hop limit of packets that `socket` takes; 0 lifts it.
#[cfg(target_os = "linux")]
pub(super) fn set(socket: &Socket, is_ipv4: bool, least: u8) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let (level, name) = match is_ipv4 {
        true => (libc::IPPROTO_IP, libc::IP_MINTTL),
        false => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    };
    let value = libc::c_int::from(least);
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; `value` is a c_int that outlives the call, and
    // the length is its size. The kernel only reads it.
    #[allow(unsafe_code)]
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Fails: this system has no such options, or they do not cover ICMP errors.
#[cfg(not(target_os = "linux"))]
pub(super) fn set(_socket: &Socket, _is_ipv4: bool, _least: u8) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
