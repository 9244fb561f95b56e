//! The sockets of a server: those that systemd hands over, or new ones.

use std::{io, net::SocketAddr, os::fd::AsFd};

use anyhow::{Context, bail};
use embedgate_config::{Environment, ServerConfig};
use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener};

use crate::{app::Listeners, http::listener::Listener};

/// The name of the socket of administrators, as `FileDescriptorName=` of systemd gives it.
const ADMIN: &str = "admin";

/// Takes the sockets that systemd hands over (socket activation), and makes those that are missing.
///
/// # Errors
/// When one cannot be made, or systemd hands over what is no listening stream socket.
pub(super) async fn open(
    config: &ServerConfig,
    environment: &Environment,
    handed: ListenFd,
) -> anyhow::Result<Listeners> {
    let handed = handed_over(handed, environment)?;
    let is_handed_over = handed.listener.is_some();
    let listener = match handed.listener {
        Some(listener) => listener,
        None => Listener::Tcp(bind(config.listen).await?),
    };
    let admin = match (handed.admin, config.admin_listen) {
        (Some(admin), _) => Some(admin),
        (None, Some(address)) => {
            let bound = bind(address).await.context("server.admin_listen")?;
            Some(Listener::Tcp(bound))
        }
        (None, None) => None,
    };
    if let (Some(local), Some(path)) = (&handed.local, &config.unix_socket)
        && local.path().as_ref() != Some(path)
    {
        tracing::warn!(
            "server.unix_socket is {}, and systemd hands over another path: that one is served",
            path.display()
        );
    }
    let local = match (handed.local, &config.unix_socket) {
        (Some(local), _) => Some(local),
        (None, Some(path)) => {
            let mode = config.unix_socket_mode.0;
            Some(Listener::unix(path, mode).context("server.unix_socket")?)
        }
        (None, None) => None,
    };
    Ok(Listeners {
        listener,
        local,
        admin,
        is_handed_over,
    })
}

#[derive(Default)]
struct HandedOver {
    listener: Option<Listener>,
    local: Option<Listener>,
    admin: Option<Listener>,
}

fn handed_over(mut all: ListenFd, environment: &Environment) -> anyhow::Result<HandedOver> {
    let names: Vec<&str> = environment
        .get("LISTEN_FDNAMES")
        .map(|names| names.split(':').collect())
        .unwrap_or_default();
    let mut handed = HandedOver::default();
    for i in 0..all.len() {
        let place = if let Ok(Some(listener)) = all.take_tcp_listener(i) {
            check_listens(&listener, i)?;
            listener.set_nonblocking(true)?;
            let listener = Listener::Tcp(TcpListener::from_std(listener)?);
            let place = match names.get(i) {
                Some(&ADMIN) => &mut handed.admin,
                _ => &mut handed.listener,
            };
            place.replace(listener)
        } else if let Ok(Some(listener)) = all.take_unix_listener(i) {
            check_listens(&listener, i)?;
            listener.set_nonblocking(true)?;
            let listener = Listener::Unix(UnixListener::from_std(listener)?);
            handed.local.replace(listener)
        } else {
            bail!(not_listening(i));
        };
        if place.is_some() {
            bail!(
                "systemd hands over two sockets of one kind: one address, one path, and one address with FileDescriptorName={ADMIN} are served"
            );
        }
    }
    Ok(handed)
}

fn check_listens(socket: &impl AsFd, i: usize) -> anyhow::Result<()> {
    match socket2::SockRef::from(socket).is_listener() {
        Ok(true) => Ok(()),
        _ => bail!(not_listening(i)),
    }
}

fn not_listening(i: usize) -> String {
    format!(
        "socket {i} of systemd is no listening stream socket: a unit has ListenStream= with an address or a path, and no Accept=yes"
    )
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| listen_error(address, &error))
}

fn listen_error(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is in use: another process listens there; stop it, or choose another address with --listen"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "{address} may not be used: ports below 1024 need a privilege, choose a higher one with --listen"
            )
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}"),
    }
}
