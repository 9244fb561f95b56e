//! The sockets where requests arrive: of TCP, or of this machine alone.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// After a failed accept, such as for want of file descriptors, it is tried again after this time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of an answer that the system takes before the client does: more would hide from us how fast the client reads.
#[cfg(target_os = "linux")]
const MOST_UNSENT: u32 = 64 << 10;

/// Connections at a path that wait to be accepted: as many as tokio has it for TCP.
const BACKLOG: i32 = 1024;

/// A socket where requests arrive.
pub(crate) enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of this machine alone.
    Unix(UnixListener),
}

/// A connection as it was accepted.
pub(super) type Stream = Either<TcpStream, UnixStream>;

impl Listener {
    /// Listens at a path. The socket of a process that has ended is replaced; one that somebody listens at is not.
    ///
    /// # Errors
    /// When another process listens there, or another file has the name.
    pub(crate) fn unix(path: &Path, mode: u32) -> anyhow::Result<Self> {
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                bail!(
                    "{} is there, and no socket: choose another path",
                    path.display()
                );
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                bail!("another process listens at {}", path.display());
            }
            fs::remove_file(path)
                .with_context(|| format!("{} cannot be replaced", path.display()))?;
        }
        let listener = bind_with_mode(path, mode)?;
        Ok(Self::Unix(listener))
    }

    /// The address of TCP; none of a socket of this machine.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The path of a socket of this machine.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                address.as_pathname().map(Path::to_owned)
            }
        }
    }

    /// The next connection, and its other end where that has an address.
    pub(super) async fn accept(&self) -> (Stream, Option<IpAddr>) {
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Small answers must not wait for more data; if it cannot be set, they do.
                drop(stream.set_nodelay(true));
                #[cfg(target_os = "linux")]
                drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(MOST_UNSENT));
                // Addresses of IPv4 on a socket of IPv6 are those of IPv4.
                Ok((Either::Left(stream), Some(peer.ip().to_canonical())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Either::Right(stream), None))
            }
        }
    }
}

/// Makes a socket that has its mode before anybody can reach it: connections are refused until it listens.
fn bind_with_mode(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket)
    };
    let cannot_listen = || format!("cannot listen at {}", path.display());
    let socket = bind().with_context(cannot_listen)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("the mode of {} cannot be set", path.display()))?;
    socket.listen(BACKLOG).with_context(cannot_listen)?;
    UnixListener::from_std(OwnedFd::from(socket).into()).with_context(cannot_listen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_nobody_listens_at_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let first = Listener::unix(&path, 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = Listener::unix(&path, 0o600).err().unwrap();
        assert!(
            error.to_string().contains("another process listens"),
            "{error}"
        );
        drop(first);
        assert!(Listener::unix(&path, 0o600).is_ok());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Listener::unix(&file, 0o600).err().unwrap();
        assert!(error.to_string().contains("no socket"), "{error}");
    }
}
