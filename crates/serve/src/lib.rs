//! `facestudio serve`: the page and the models over HTTP, for one's own machine. Static files, GET and HEAD, with entity tags
//! and byte ranges (RFC 9110), so that an interrupted download of a model goes on where it stopped.
//!
//! It knows nothing of the rest, so that `make demo` need not build it.

#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used))]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

mod answer;
mod compress;
mod connections;
mod error;
mod file;
mod hosts;
mod range;
mod site;

use answer::Server;
use connections::{Connection, Connections};
pub use error::Error;
use hosts::{Host, Hosts};
use site::Site;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// How long peers are waited for.
#[derive(Clone, Copy)]
struct Patience {
    /// For the whole head of a request, and between two requests.
    head: Duration,
    /// For an answer of which nothing is taken.
    stall: Duration,
}

const PATIENCE: Patience = Patience { head: Duration::from_secs(10), stall: Duration::from_secs(30) };

/// What is served, where and to whom.
#[derive(clap::Args)]
pub struct Args {
    /// Port; 0 takes a free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Address to listen on; 0.0.0.0 lets other machines in.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// A further name that the page may be opened by, such as `studio.local`; may be repeated. Others than localhost and the
    /// addresses that are listened on are refused (421), so that no site can pass itself off as this one (DNS rebinding).
    #[arg(long, value_name = "NAME", value_parser = hosts::alone)]
    host_name: Vec<Host>,
    /// The browser package, served at /.
    #[arg(long, default_value = "pkg")]
    root: PathBuf,
    /// The model folders, served at /models/.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Leave out the header that isolates the page from other origins (COEP), as many hosts do: the CPU backend then has one
    /// thread, until the page's service worker adds the header at the second visit.
    #[arg(long)]
    not_isolated: bool,
}

/// The page at an address that is listened on.
pub struct Page {
    listener: TcpListener,
    address: SocketAddr,
    server: Server,
}

/// Takes the address. Fails with `page-missing` where there is nothing to show, and with `port-taken`.
pub fn listen(args: Args) -> Result<Page, Error> {
    let site = Site::new(&args.root, &args.models)?;
    let address = SocketAddr::new(args.host, args.port);
    let listener = TcpListener::bind(address).map_err(|e| {
        error::cannot_serve("port-taken", format!("cannot listen on {address}: {e}"), "choose another --port")
    })?;
    let address = listener.local_addr().map_err(|e| error::io(address, e))?;
    let hosts = Hosts::new(address.ip(), args.host_name);
    Ok(Page { listener, address, server: Server::new(site, hosts, !args.not_isolated) })
}

impl Page {
    /// Where this machine's own browser opens it.
    pub fn address(&self) -> SocketAddr {
        reachable(self.address)
    }

    /// Serves until the program is stopped.
    pub fn serve(self) -> Result<(), Error> {
        let address = self.address;
        serve(self.listener, self.server, PATIENCE).map_err(|e| error::io(address, e))
    }
}

/// The address that this machine's own browser can open: all addresses are none to go to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let own = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(own, address.port())
}

/// Accepts connections for ever. One thread looks after all; files are read by tokio's own.
fn serve(listener: TcpListener, server: Server, patience: Patience) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (server, connections) = (Arc::new(server), Arc::new(Connections::default()));
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let connection = Arc::new(connections.open(peer.ip()));
                    tokio::spawn(converse(stream, connection, server.clone(), patience));
                }
                // No more files may be open, or the peer is gone: others end meanwhile.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
}

/// Answers the requests of one connection until either side ends it.
async fn converse(stream: TcpStream, connection: Arc<Connection>, server: Arc<Server>, patience: Patience) {
    let Ok(local) = stream.local_addr() else { return };
    // Answers are small or sent in large pieces; without it they only take longer.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| server.answer(request, local.ip(), &connection));
    let answers = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut answers = std::pin::pin!(answers);
    loop {
        tokio::select! {
            // A peer that goes away is its own affair.
            _ = answers.as_mut() => return,
            () = connection.ended() => return,
            () = tokio::time::sleep(patience.stall) => if connection.stalled(patience.stall) { return },
        }
    }
}

#[cfg(test)]
mod tests;
