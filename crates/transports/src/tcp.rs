//! `tcp://host:port`: framed messages over TCP.

use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};
use std::time::Duration;

#[cfg(unix)]
use network_system_core::ListeningSocket;
use network_system_core::config::{LinkConfig, SocketOptions};
use network_system_core::worker::{Io, is_worker};
use network_system_core::{
    Address, Bound, Endpoint, Error, ErrorKind, LinkInfo, Listener, Result, StreamLink,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpSocket};

use crate::watched::Watched;

/// A connected TCP socket.
pub type TcpStream = Watched<tokio::net::TcpStream, mio::net::TcpStream>;
/// A message link over TCP.
pub type TcpLink = StreamLink<TcpStream>;

/// A TCP address that has been taken.
pub struct TcpBound {
    socket: std::net::TcpListener,
    address: Address,
    local: SocketAddr,
    config: LinkConfig,
}

/// Accepts TCP connections.
pub struct TcpAcceptor {
    listener: Listening,
    local: SocketAddr,
    config: LinkConfig,
}

/// Watched by whoever runs it.
enum Listening {
    Runtime(TcpListener),
    Worker(Io<mio::net::TcpListener>),
}

impl Listening {
    fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        Ok(if is_worker() {
            Self::Worker(Io::new(mio::net::TcpListener::from_std(socket))?)
        } else {
            Self::Runtime(TcpListener::from_std(socket)?)
        })
    }

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Runtime(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Watched::Runtime(stream), peer))
            }
            Self::Worker(listener) => {
                let accept = |listener: &mio::net::TcpListener| Ok((listener.accept()?, true));
                let (stream, peer) = poll_fn(|cx| listener.poll_input(cx, accept)).await?;
                Ok((Watched::Worker(Io::new(stream)?), peer))
            }
        }
    }
}

/// Takes `address` for `workers` listeners. Where the system spreads connections over listeners
/// (`SO_REUSEPORT` on Linux) each worker gets a socket of its own, elsewhere they share one.
///
/// An empty host is every local address; it takes IPv4 and IPv6 unless dual stack is off.
///
/// # Errors
/// [`ErrorKind::BindFailed`] names the address.
pub async fn bind(address: &Address, config: &LinkConfig, workers: usize) -> Result<Vec<TcpBound>> {
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; stop it or take another port"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need more rights",
            _ => "check the address",
        };
        Error::from_io("listen on", error)
            .into_kind(ErrorKind::BindFailed)
            .peer(address)
            .advice(advice)
    };
    let target = listen_address(address).await?;
    let bound = |socket, local: SocketAddr| TcpBound {
        socket,
        address: address.with_port(local.port()),
        local,
        config: config.clone(),
    };
    #[cfg(unix)]
    if let Some((local, sockets)) = adopt(address, target, config, workers).map_err(failed)? {
        let bound = sockets.into_iter().map(|socket| bound(socket, local));
        return Ok(bound.collect());
    }
    let own_sockets = workers > 1 && cfg!(target_os = "linux");
    if own_sockets && target.port() != 0 {
        // SO_REUSEPORT would let us in beside another program of the same user
        drop(open(target, config, false).map_err(failed)?);
    }
    let first = open(target, config, own_sockets).map_err(failed)?;
    let local = first.local_addr().map_err(failed)?;
    let mut sockets = vec![first];
    while sockets.len() < workers {
        let next = if own_sockets {
            open(local, config, true)
        } else {
            sockets[0].try_clone()
        };
        sockets.push(next.map_err(failed)?);
    }
    #[cfg(unix)]
    for socket in sockets.iter().take(if own_sockets { workers } else { 1 }) {
        let name = ListeningSocket::name_of(address);
        remember(socket, name, config).map_err(failed)?;
    }
    let bound = |socket| bound(socket, local);
    Ok(sockets.into_iter().map(bound).collect())
}

/// Keeps a handle of a listening socket for the process that may come after this one.
#[cfg(unix)]
fn remember(socket: &std::net::TcpListener, name: String, config: &LinkConfig) -> io::Result<()> {
    let fd = socket.try_clone()?.into();
    config.sockets.add(ListeningSocket { name, fd });
    Ok(())
}

/// The sockets of this address that another process has given, every one of them: what waits to be
/// accepted on one that is closed would be reset. More where there are more workers.
#[cfg(unix)]
fn adopt(
    address: &Address,
    target: SocketAddr,
    config: &LinkConfig,
    workers: usize,
) -> io::Result<Option<(SocketAddr, Vec<std::net::TcpListener>)>> {
    let name = ListeningSocket::name_of(address);
    let mut given = config.sockets.take(|socket| socket.name == name);
    if given.is_empty() {
        given = config.sockets.take(|socket| is_of(socket, target));
    }
    let mut sockets = Vec::new();
    for ListeningSocket { name, fd } in given {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        apply(&SockRef::from(&socket), config)?;
        // again, for the length of the queue
        socket.listen(i32::try_from(config.socket.backlog).unwrap_or(i32::MAX))?;
        let socket = socket.into();
        remember(&socket, name, config)?;
        sockets.push(socket);
    }
    let Some(first) = sockets.first() else {
        return Ok(None);
    };
    let local = first.local_addr()?;
    let many = cfg!(target_os = "linux") && SockRef::from(first).reuse_port()?;
    let count = sockets.len();
    while sockets.len() < workers {
        let next = if many {
            let socket = open(local, config, true)?;
            remember(&socket, name.clone(), config)?;
            socket
        } else {
            sockets[sockets.len() % count].try_clone()?
        };
        sockets.push(next);
    }
    Ok(Some((local, sockets)))
}

/// Whether a socket listens on `target`.
#[cfg(unix)]
fn is_of(socket: &ListeningSocket, target: SocketAddr) -> bool {
    let socket = SockRef::from(&socket.fd);
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    let same = |local: SocketAddr| {
        // every local address is one of the sixth version unless the machine has none
        let any = local.ip().is_unspecified() && target.ip() == Ipv6Addr::UNSPECIFIED;
        local.port() == target.port() && (local.ip() == target.ip() || any)
    };
    socket.is_listener().unwrap_or(false) && local.is_some_and(same)
}

/// The address to listen on: the first that the name stands for.
async fn listen_address(address: &Address) -> Result<SocketAddr> {
    let (host, port) = address.host_and_port()?;
    if host.is_empty() {
        return Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    let first = resolve(host, port, address).await?.into_iter().next();
    first.ok_or_else(|| unresolved(address, "the name has no address"))
}

fn open(
    target: SocketAddr,
    config: &LinkConfig,
    reuse_port: bool,
) -> io::Result<std::net::TcpListener> {
    match open_exactly(target, config, reuse_port) {
        // a machine without IPv6
        Err(error)
            if target.ip() == Ipv6Addr::UNSPECIFIED
                && error.kind() != io::ErrorKind::AddrInUse
                && config.socket.dual_stack =>
        {
            let target = SocketAddr::from((Ipv4Addr::UNSPECIFIED, target.port()));
            open_exactly(target, config, reuse_port).map_err(|_| error)
        }
        result => result,
    }
}

fn open_exactly(
    target: SocketAddr,
    config: &LinkConfig,
    reuse_port: bool,
) -> io::Result<std::net::TcpListener> {
    let options = &config.socket;
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if target.is_ipv6() {
        socket.set_only_v6(!options.dual_stack)?;
    }
    // on Windows this option would let another program take the port away
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(reuse_port)?;
    #[cfg(not(unix))]
    let _ = reuse_port;
    // buffer sizes must be set before the handshake, which fixes the window scale; accepted
    // connections inherit every option on Linux
    apply(&SockRef::from(&socket), config)?;
    socket.set_nonblocking(true)?;
    socket.bind(&target.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Sets the options of one socket.
fn apply(socket: &SockRef<'_>, config: &LinkConfig) -> io::Result<()> {
    let SocketOptions {
        nodelay,
        keepalive,
        receive_buffer,
        send_buffer,
        unsent,
        ..
    } = config.socket;
    socket.set_tcp_nodelay(nodelay)?;
    #[cfg(target_os = "linux")]
    if unsent > 0 {
        socket.set_tcp_notsent_lowat(unsent)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = unsent;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    let heartbeat = &config.session.heartbeat;
    match heartbeat.interval {
        Some(interval) if keepalive => {
            let interval = probe_interval(interval);
            let probes = TcpKeepalive::new().with_time(interval);
            #[cfg(any(target_os = "linux", target_os = "macos", windows))]
            let probes = probes.with_interval(interval);
            #[cfg(any(target_os = "linux", target_os = "macos"))]
            let probes = probes.with_retries(heartbeat.missed.clamp(1, MOST_PROBES));
            socket.set_tcp_keepalive(&probes)
        }
        _ => socket.set_keepalive(keepalive),
    }
}

/// What Linux takes for the number of probes and for the seconds between them; more is an error.
const MOST_PROBES: u32 = 127;
const MOST_SECONDS: u64 = 32_767;

/// The heartbeat's interval as sockets take it: whole seconds, at least one.
fn probe_interval(interval: Duration) -> Duration {
    let seconds = interval
        .as_secs()
        .saturating_add(u64::from(interval.subsec_nanos() > 0));
    Duration::from_secs(seconds.clamp(1, MOST_SECONDS))
}

impl Bound for TcpBound {
    type Listener = TcpAcceptor;

    fn local(&self) -> &Address {
        &self.address
    }

    fn start(self) -> Result<TcpAcceptor> {
        let listener = Listening::new(self.socket)
            .map_err(|error| Error::from_io("listen on", error).peer(&self.address))?;
        Ok(TcpAcceptor {
            listener,
            local: self.local,
            config: self.config,
        })
    }
}

impl Listener for TcpAcceptor {
    type Link = TcpLink;

    async fn accept(&mut self) -> Result<TcpLink> {
        let accepted = self.listener.accept().await;
        let (stream, peer) =
            accepted.map_err(|error| Error::from_io("accept on", error).peer(self.local))?;
        if !cfg!(target_os = "linux") {
            // best effort: a peer that is gone already shows at the first read
            let _ = apply(&SockRef::from(&stream), &self.config);
        }
        let local = if self.local.ip().is_unspecified() {
            local_address(&stream).unwrap_or(self.local)
        } else {
            self.local
        };
        Ok(link(stream, peer, local, &self.config))
    }
}

impl TcpStream {
    /// The first byte that has come, which stays where it is; `None` at the end.
    pub(crate) fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<u8>>> {
        let mut byte = [0];
        let n = match self {
            Self::Runtime(stream) => {
                let mut into = ReadBuf::new(&mut byte);
                ready!(stream.poll_peek(cx, &mut into))?
            }
            Self::Worker(stream) => {
                let mut peek = |stream: &mio::net::TcpStream| Ok((stream.peek(&mut byte)?, true));
                ready!(stream.poll_input(cx, &mut peek))?
            }
        };
        Poll::Ready(Ok((n > 0).then_some(byte[0])))
    }
}

fn link(stream: TcpStream, peer: SocketAddr, local: SocketAddr, config: &LinkConfig) -> TcpLink {
    let (peer, local) = (
        Endpoint::Ip(canonical(peer)),
        Endpoint::Ip(canonical(local)),
    );
    let info = LinkInfo::new("tcp", peer, local, config);
    StreamLink::new(stream, config.session.limited_framing(), info)
}

/// An IPv4 peer of a dual-stack listener as the IPv4 address that it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Connects to the first address of the host that answers.
///
/// # Errors
/// [`ErrorKind::ConnectionFailed`] when the name stands for no address, else why the last address
/// could not be reached.
pub async fn connect(address: &Address, config: &LinkConfig) -> Result<TcpLink> {
    let (host, port) = address.host_and_port()?;
    let host = if host.is_empty() { "localhost" } else { host };
    let mut last = None;
    for target in resolve(host, port, address).await? {
        match connect_to(target, config).await {
            Ok(stream) => {
                let local = local_address(&stream);
                let local = local.map_err(|e| Error::from_io("connect to", e).peer(address))?;
                return Ok(link(stream, target, local, config));
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) => connect_error(error, address),
        None => unresolved(address, "the name has no address"),
    })
}

async fn connect_to(target: SocketAddr, config: &LinkConfig) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    apply(&SockRef::from(&socket), config)?;
    let stream = socket.connect(target).await?;
    Ok(if is_worker() {
        let stream = mio::net::TcpStream::from_std(stream.into_std()?);
        Watched::Worker(Io::new(stream)?)
    } else {
        Watched::Runtime(stream)
    })
}

fn local_address(stream: &TcpStream) -> io::Result<SocketAddr> {
    match stream {
        Watched::Runtime(stream) => stream.local_addr(),
        Watched::Worker(stream) => stream.get_ref().local_addr(),
    }
}

fn connect_error(error: io::Error, address: &Address) -> Error {
    let error = Error::from_io("connect to", error).peer(address);
    match error.kind() {
        ErrorKind::ConnectionRefused => error.advice("check that a server listens there"),
        ErrorKind::ConnectionTimeout => error.advice("check the address, and firewalls in between"),
        _ => error.into_kind(ErrorKind::ConnectionFailed),
    }
}

async fn resolve(host: &str, port: u16, address: &Address) -> Result<Vec<SocketAddr>> {
    match tokio::net::lookup_host((host, port)).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(unresolved(address, &error.to_string()).caused_by(error)),
    }
}

fn unresolved(address: &Address, why: &str) -> Error {
    Error::new(ErrorKind::ConnectionFailed, "find the address of")
        .peer(address)
        .because(format_args!(
            "the name '{}' cannot be resolved: {why}",
            address.host()
        ))
        .advice("check the spelling, and the name servers of this machine")
}
