//! `unix:///path`: framed messages over Unix sockets.

use std::fs::{File, TryLockError};
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use network_system_core::config::LinkConfig;
use network_system_core::worker::{Io, is_worker};
use network_system_core::{
    Address, Bound, Endpoint, Error, ErrorKind, LinkInfo, Listener, ListeningSocket, Result,
    Sockets, StreamLink,
};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::UnixListener;

use crate::watched::Watched;

/// A connected Unix socket.
pub type UnixStream = Watched<tokio::net::UnixStream, mio::net::UnixStream>;
/// A message link over a Unix socket.
pub type UnixLink = StreamLink<UnixStream>;

/// A path that has been taken.
pub struct UnixBound {
    socket: StdListener,
    address: Address,
    file: Arc<SocketFile>,
    config: LinkConfig,
}

/// Accepts connections on a path.
pub struct UnixAcceptor {
    listener: Listening,
    file: Arc<SocketFile>,
    config: LinkConfig,
}

/// Watched by whoever runs it.
enum Listening {
    Runtime(UnixListener),
    Worker(Io<mio::net::UnixListener>),
}

impl Listening {
    fn new(socket: StdListener) -> io::Result<Self> {
        Ok(if is_worker() {
            Self::Worker(Io::new(mio::net::UnixListener::from_std(socket))?)
        } else {
            Self::Runtime(UnixListener::from_std(socket)?)
        })
    }

    async fn accept(&mut self) -> io::Result<(UnixStream, Endpoint)> {
        match self {
            Self::Runtime(listener) => {
                let (stream, peer) = listener.accept().await?;
                let peer = named(peer.as_pathname());
                Ok((Watched::Runtime(stream), peer))
            }
            Self::Worker(listener) => {
                let accept = |listener: &mio::net::UnixListener| Ok((listener.accept()?, true));
                let (stream, peer) = poll_fn(|cx| listener.poll_input(cx, accept)).await?;
                let peer = named(peer.as_pathname());
                Ok((Watched::Worker(Io::new(stream)?), peer))
            }
        }
    }
}

/// The file of a listening socket; removed with the last listener, unless it is another's by then.
struct SocketFile {
    path: PathBuf,
    /// Which file it is; `None` when it was gone at once.
    identity: Option<Identity>,
    /// Whether it is somebody else's for ever, such as systemd's.
    foreign: bool,
    sockets: Sockets,
}

/// Device and number of a file, which no other file has while it exists.
type Identity = (u64, u64);

fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

impl SocketFile {
    fn new(path: &Path, foreign: bool, config: &LinkConfig) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path).ok(),
            foreign,
            sockets: config.sockets.clone(),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.path.display();
        if self.foreign || self.sockets.do_files_stay() {
            tracing::debug!(%path, "the socket file is another process's");
            return;
        }
        match identity(&self.path) {
            Ok(now) if Some(now) == self.identity => {
                if let Err(error) = std::fs::remove_file(&self.path) {
                    tracing::warn!(%path, %error, "the socket file stays");
                }
            }
            Ok(_) => tracing::debug!(%path, "another server has taken the path over"),
            Err(error) => tracing::debug!(%path, %error, "the socket file was gone"),
        }
    }
}

/// How long to wait for other servers that start in the same folder.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// Keeps other servers of this library from looking for a dead server's file in the same folder, and
/// from replacing it, until the result is dropped. Nothing stays behind, since the lock is one of the
/// folder itself. Best effort: `None` where the folder cannot be read or is locked by something else.
async fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    for _ in 0..LOCK_TRIES {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_WAIT).await,
            Err(TryLockError::Error(_)) => return None,
        }
    }
    None
}

fn path(address: &Address) -> Result<&Path> {
    if address.host().is_empty() && address.path().len() > 1 {
        return Ok(Path::new(address.path()));
    }
    Err(Error::new(ErrorKind::InvalidArgument, "use the address")
        .peer(address)
        .because("an absolute path is needed, as in unix:///run/app.sock"))
}

/// Takes the path for `workers` listeners that share one socket. A file that a dead server left
/// behind is replaced.
///
/// # Errors
/// [`ErrorKind::BindFailed`] names the address.
pub async fn bind(
    address: &Address,
    config: &LinkConfig,
    workers: usize,
) -> Result<Vec<UnixBound>> {
    let path = path(address)?;
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there, or a file of another kind is in the way"
            }
            io::ErrorKind::NotFound => "the folder does not exist",
            _ => "check the path; it may have about 100 bytes",
        };
        Error::from_io("listen on", error)
            .into_kind(ErrorKind::BindFailed)
            .peer(address)
            .advice(advice)
    };
    let bound = |socket, file: &Arc<SocketFile>| UnixBound {
        socket,
        address: address.clone(),
        file: file.clone(),
        config: config.clone(),
    };
    let given = adopt(address, path, config).map_err(failed)?;
    if let Some((socket, _)) = given.first() {
        let mut sockets = Vec::new();
        while given.len() + sockets.len() < workers {
            sockets.push(socket.try_clone().map_err(failed)?);
        }
        let foreign = given.iter().any(|(_, foreign)| *foreign);
        let file = Arc::new(SocketFile::new(path, foreign, config));
        let all = given.into_iter().map(|(socket, _)| socket).chain(sockets);
        return Ok(all.map(|socket| bound(socket, &file)).collect());
    }
    let lock = lock_folder(path).await;
    let socket = match open(path, config) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            std::fs::remove_file(path).map_err(failed)?;
            open(path, config)
        }
        result => result,
    }
    .map_err(failed)?;
    let file = Arc::new(SocketFile::new(path, false, config));
    drop(lock);
    remember(&socket, ListeningSocket::name_of(address), config).map_err(failed)?;
    let mut all = Vec::with_capacity(workers);
    for _ in 0..workers {
        all.push(bound(socket.try_clone().map_err(failed)?, &file));
    }
    Ok(all)
}

/// Keeps a handle of a listening socket for the process that may come after this one.
fn remember(socket: &StdListener, name: String, config: &LinkConfig) -> io::Result<()> {
    let fd = socket.try_clone()?.into();
    config.sockets.add(ListeningSocket { name, fd });
    Ok(())
}

/// The sockets of this path that another process has given, and whether the file is not ours.
fn adopt(
    address: &Address,
    path: &Path,
    config: &LinkConfig,
) -> io::Result<Vec<(StdListener, bool)>> {
    let ours = ListeningSocket::name_of(address);
    let is_of = |socket: &mut ListeningSocket| {
        let socket = SockRef::from(&socket.fd);
        let local = socket.local_addr().ok();
        let local = local.as_ref().and_then(SockAddr::as_pathname);
        socket.is_listener().unwrap_or(false) && local == Some(path)
    };
    let given = config.sockets.take(is_of).into_iter().map(|given| {
        let foreign = given.name != ours && !given.name.starts_with("unix%3a");
        let socket = Socket::from(given.fd);
        socket.set_nonblocking(true)?;
        apply(&SockRef::from(&socket), config)?;
        socket.listen(i32::try_from(config.socket.backlog).unwrap_or(i32::MAX))?;
        let socket = socket.into();
        remember(&socket, given.name, config)?;
        Ok((socket, foreign))
    });
    given.collect()
}

/// Whether the file is a socket that nobody listens on. Does not wait: a server that is too busy to
/// accept lives.
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    let probe = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    is_socket && probe().is_err_and(refused)
}

fn open(path: &Path, config: &LinkConfig) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    apply(&SockRef::from(&socket), config)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(i32::try_from(config.socket.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn apply(socket: &SockRef<'_>, config: &LinkConfig) -> io::Result<()> {
    if let Some(bytes) = config.socket.receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = config.socket.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}

impl Bound for UnixBound {
    type Listener = UnixAcceptor;

    fn local(&self) -> &Address {
        &self.address
    }

    fn start(self) -> Result<UnixAcceptor> {
        let listener = Listening::new(self.socket)
            .map_err(|error| Error::from_io("listen on", error).peer(&self.address))?;
        Ok(UnixAcceptor {
            listener,
            file: self.file,
            config: self.config,
        })
    }
}

impl Listener for UnixAcceptor {
    type Link = UnixLink;

    async fn accept(&mut self) -> Result<UnixLink> {
        let path = &self.file.path;
        let (stream, peer) = self
            .listener
            .accept()
            .await
            .map_err(|error| Error::from_io("accept on", error).peer(path.display()))?;
        // not inherited from the listener; best effort, the defaults work
        let _ = apply(&SockRef::from(&stream), &self.config);
        Ok(link(
            stream,
            peer,
            Endpoint::Unix(Some(path.clone())),
            &self.config,
        ))
    }
}

fn named(path: Option<&Path>) -> Endpoint {
    Endpoint::Unix(path.map(Path::to_owned))
}

fn link(stream: UnixStream, peer: Endpoint, local: Endpoint, config: &LinkConfig) -> UnixLink {
    let info = LinkInfo::new("unix", peer, local, config);
    StreamLink::new(stream, config.session.limited_framing(), info)
}

/// Connects to the path.
///
/// # Errors
/// [`ErrorKind::NotFound`] when the file does not exist, [`ErrorKind::ConnectionRefused`] when
/// nobody listens there.
pub async fn connect(address: &Address, config: &LinkConfig) -> Result<UnixLink> {
    let path = path(address)?;
    let failed = |error: io::Error| {
        let error = Error::from_io("connect to", error).peer(address);
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                error.advice("check that a server listens there")
            }
            _ => error,
        }
    };
    let stream = tokio::net::UnixStream::connect(path)
        .await
        .map_err(failed)?;
    apply(&SockRef::from(&stream), config).map_err(failed)?;
    let local = stream.local_addr().map_err(failed)?;
    let stream = if is_worker() {
        let stream = stream.into_std().map_err(failed)?;
        Watched::Worker(Io::new(mio::net::UnixStream::from_std(stream)).map_err(failed)?)
    } else {
        Watched::Runtime(stream)
    };
    Ok(link(
        stream,
        Endpoint::Unix(Some(path.to_owned())),
        named(local.as_pathname()),
        config,
    ))
}
