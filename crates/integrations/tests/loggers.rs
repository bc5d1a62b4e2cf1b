//! The application's logger gets what servers and clients tell.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use std::sync::mpsc;

use network_system::{ErrorKind, Server};
use network_system_integrations::logging::{self, Level, Logger, Record};

struct Lines(mpsc::Sender<(Level, String)>);

impl Logger for Lines {
    fn log(&self, record: &Record<'_>) {
        let _ = self.0.send((record.level, record.to_string()));
    }
}

#[tokio::test]
async fn a_server_tells_where_it_listens() {
    let (lines, told) = mpsc::channel();
    logging::set_logger(Lines(lines.clone())).unwrap();
    let second = logging::set_logger(Lines(lines)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AlreadyExists);
    let server = Server::builder()
        .listen("tcp://127.0.0.1:0")
        .start()
        .await
        .unwrap();
    let address = server.listening()[0].to_string();
    let (level, line) = told.try_recv().unwrap();
    assert_eq!(level, Level::Info);
    assert!(
        line.contains("network_system_core::server: listening") && line.contains(&address),
        "{line}"
    );
}
