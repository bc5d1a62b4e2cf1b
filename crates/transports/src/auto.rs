//! One port for everything: `auto://host:port`. The first byte of a connection says what it speaks:
//! frames, TLS (in which the first byte decides again), or HTTP, on which WebSockets and gRPC begin.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use network_system_core::config::LinkConfig;
use network_system_core::wire::Framing;
use network_system_core::wire::pipeline::Role;
use network_system_core::{
    Address, Bound, Encoding, Error, ErrorKind, InQueue, Introduced, Link, LinkInfo, Listener,
    OutQueue, Piped, ReadyPipeline, Result, Sent, Sink, Source,
};

use crate::http::{Http, HttpLink, Serving};
use crate::schemes::AnyLink;
use crate::tcp::{TcpAcceptor, TcpBound, TcpLink};
use crate::tls::{Accepting, Tls, TlsLink};

/// With which TLS begins: a handshake record (RFC 8446, section 5.1).
const TLS: u8 = 0x16;
/// A longer frame could begin with [`TLS`].
const MOST: usize = (TLS as usize) << 24;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Messages behind their length, whose first byte is below [`TLS`].
    Frames,
    Tls,
    /// Methods are words, those of HTTP/2's preface included.
    Http,
}

impl Kind {
    fn of(first: u8) -> Self {
        match first {
            TLS => Self::Tls,
            b'A'..=b'Z' | b'a'..=b'z' => Self::Http,
            // the framing says what is wrong with others
            _ => Self::Frames,
        }
    }
}

/// What the connections of a listener share.
struct Listening {
    tls: Option<Accepting>,
    /// Whether TLS is a must.
    only_tls: bool,
    http: Option<Arc<Serving>>,
    pipeline: Option<ReadyPipeline>,
}

/// Takes addresses for every protocol.
pub(crate) struct Auto(Arc<Listening>);

impl Auto {
    /// What listeners on `address` need, and the settings of the TCP below them.
    pub(crate) fn new(
        address: &Address,
        config: &LinkConfig,
        tls: &Tls,
        http: &Http,
    ) -> Result<(Self, LinkConfig)> {
        let unfit = |why: &str, what: &'static str| {
            let error = Error::new(ErrorKind::InvalidArgument, "listen on").peer(address);
            Err(error.because(why).advice(what))
        };
        match &config.session.framing {
            Framing::LengthPrefix(prefix) if prefix.is_default_layout() => {}
            _ => {
                return unfit(
                    "only the default framing can be told from other protocols",
                    "listen on tcp:// for this framing",
                );
            }
        }
        if config.session.max_message >= MOST {
            return unfit(
                "so large a message cannot be told from TLS",
                "let max_message be below 352 MiB, or listen on tcp://",
            );
        }
        let (pipeline, mut below) = match ReadyPipeline::new(config, Role::Server)? {
            Some((pipeline, below)) => (Some(pipeline), below),
            None => (None, config.clone()),
        };
        let mut serving = None;
        if Http::IS_THERE {
            let mut plain = config.clone();
            plain.session.pipeline = None;
            let (http, with_alpn) = http.accept(address, &plain)?;
            below.tls_server = with_alpn.tls_server;
            serving = Some(http);
        }
        let secure = config.tls || !config.tls_server.certificates.is_empty();
        let listening = Listening {
            tls: secure.then(|| tls.accept(address, &below)).transpose()?,
            only_tls: config.tls,
            http: serving,
            pipeline,
        };
        Ok((Self(Arc::new(listening)), below))
    }

    /// What messages go through, where that is so.
    pub(crate) fn pipeline(&self) -> Option<&ReadyPipeline> {
        self.0.pipeline.as_ref()
    }

    /// Every protocol on each of these.
    pub(crate) fn over(self, bound: Vec<TcpBound>) -> impl Iterator<Item = AutoBound> {
        bound.into_iter().map(move |tcp| AutoBound {
            tcp,
            listening: self.0.clone(),
        })
    }
}

/// A TCP address that has been taken for every protocol.
pub struct AutoBound {
    tcp: TcpBound,
    listening: Arc<Listening>,
}

impl AutoBound {
    pub(crate) fn local(&self) -> &Address {
        self.tcp.local()
    }

    pub(crate) fn start(self) -> Result<AutoListener> {
        Ok(AutoListener {
            tcp: self.tcp.start()?,
            listening: self.listening,
        })
    }
}

/// Accepts connections that may speak every protocol.
pub struct AutoListener {
    tcp: TcpAcceptor,
    listening: Arc<Listening>,
}

impl AutoListener {
    pub(crate) async fn accept(&mut self) -> Result<AutoLink> {
        Ok(AutoLink {
            tcp: self.tcp.accept().await?,
            listening: self.listening.clone(),
        })
    }
}

/// A connection that has not said yet what it speaks: opening it finds out.
pub struct AutoLink {
    tcp: TcpLink,
    listening: Arc<Listening>,
}

impl AutoLink {
    pub(crate) fn info(&self) -> &LinkInfo {
        self.tcp.info()
    }

    /// Never: it is another link then.
    pub(crate) fn is_open(&self) -> bool {
        false
    }

    pub(crate) async fn learn_client(&mut self) -> Result<Introduced> {
        self.tcp.learn_client().await
    }

    /// The link of whatever the first byte says. Nothing is taken from the stream for that, so what
    /// comes after is as if the listener had been for this protocol alone.
    pub(crate) async fn open(self) -> Result<AnyLink> {
        let Self { mut tcp, listening } = self;
        let first = poll_fn(|cx| tcp.parts_mut().0.poll_first(cx)).await;
        let kind = kind(first, tcp.info())?;
        match &listening.tls {
            Some(tls) if kind == Kind::Tls => {
                let link = tls.link(tcp.into())?.open().await?;
                listening.inside_tls(link).await
            }
            None if kind == Kind::Tls => Err(other(tcp.info())
                .because("it speaks TLS, for which this server has no certificate")
                .advice("set one, or connect without TLS")),
            _ if listening.only_tls => {
                Err(other(tcp.info())
                    .because("it does not speak TLS, without which nobody is let in"))
            }
            _ => listening.open(AnyLink::Tcp(tcp), kind).await,
        }
    }
}

fn other(info: &LinkInfo) -> Error {
    Error::new(ErrorKind::Handshake, "find out what is spoken by").peer(&info.peer)
}

fn kind(first: io::Result<Option<u8>>, info: &LinkInfo) -> Result<Kind> {
    match first {
        Ok(Some(byte)) => Ok(Kind::of(byte)),
        Ok(None) => Err(other(info).because("it has closed the connection without a word")),
        Err(error) => Err(Error::from_io("find out what is spoken by", error).peer(&info.peer)),
    }
}

impl Listening {
    /// What is inside TLS: what both sides have agreed on by ALPN, or what the first byte says.
    async fn inside_tls(&self, mut link: TlsLink) -> Result<AnyLink> {
        let alpn = link.info().tls.as_ref().and_then(|tls| tls.alpn.as_deref());
        let kind = match alpn {
            Some("h2" | "http/1.1") => Kind::Http,
            _ => {
                let first = poll_fn(|cx| link.poll_first(cx)).await;
                kind(first, link.info())?
            }
        };
        if kind == Kind::Tls {
            return Err(other(link.info()).because("it speaks TLS inside TLS"));
        }
        self.open(AnyLink::Tls(link), kind).await
    }

    async fn open(&self, link: AnyLink, kind: Kind) -> Result<AnyLink> {
        match (kind, &self.http, &self.pipeline) {
            (Kind::Http, Some(http), _) => {
                let link = HttpLink::over(link, http.clone());
                Ok(AnyLink::Http(Box::new(link)))
            }
            (Kind::Http, None, _) => {
                Err(other(link.info())
                    .because("it speaks HTTP, without which this program was built"))
            }
            (_, _, Some(pipeline)) => {
                let link = Piped::accepted(link, pipeline.clone());
                let link = link.open_over(async |link| Ok(link)).await?;
                Ok(AnyLink::Piped(Box::new(link)))
            }
            (_, _, None) => Ok(link),
        }
    }
}

/// Why nothing can be sent or received before it is open.
fn not_open() -> Error {
    Error::new(ErrorKind::NotInitialized, "move messages over")
        .because("what this connection speaks is not known yet")
}

impl Source for AutoLink {
    fn poll_fill(&mut self, _: &mut Context<'_>, _: &mut InQueue) -> Poll<Result<bool>> {
        Poll::Ready(Err(not_open()))
    }
}

impl Sink for AutoLink {
    fn encoding(&self) -> Encoding {
        Encoding::Messages
    }

    fn poll_send(&mut self, _: &mut Context<'_>, _: &mut OutQueue) -> (Sent, Poll<Result<()>>) {
        (Sent::default(), Poll::Ready(Err(not_open())))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for AutoLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AutoLink")
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte decides, so it does not matter how the others are cut.
    #[test]
    fn every_first_byte() {
        for length in [0, 1, 1 << 24, MOST as u32 - 1] {
            assert_eq!(Kind::of(length.to_be_bytes()[0]), Kind::Frames, "{length}");
        }
        assert_eq!(Kind::of((MOST as u32).to_be_bytes()[0]), Kind::Tls);
        // every method that IANA knows, what begins HTTP/2, and PROXY headers where none is wanted
        for method in [
            "ACL",
            "BASELINE-CONTROL",
            "BIND",
            "CHECKIN",
            "CHECKOUT",
            "CONNECT",
            "COPY",
            "DELETE",
            "GET",
            "HEAD",
            "LABEL",
            "LINK",
            "LOCK",
            "MERGE",
            "MKACTIVITY",
            "MKCALENDAR",
            "MKCOL",
            "MKREDIRECTREF",
            "MKWORKSPACE",
            "MOVE",
            "OPTIONS",
            "ORDERPATCH",
            "PATCH",
            "POST",
            "PRI",
            "PROPFIND",
            "PROPPATCH",
            "PUT",
            "REBIND",
            "REPORT",
            "SEARCH",
            "TRACE",
            "UNBIND",
            "UNCHECKOUT",
            "UNLINK",
            "UNLOCK",
            "UPDATE",
            "UPDATEREDIRECTREF",
            "VERSION-CONTROL",
            "PROXY",
        ] {
            assert_eq!(Kind::of(method.as_bytes()[0]), Kind::Http, "{method}");
        }
    }
}
