//! A browser speaks with our server: Chromium, without a screen, opens the page of the example
//! `chat_browser`.
//!
//! What it needs must be there; `scripts/test.sh` installs it.
#![cfg(all(feature = "http", feature = "websocket", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

mod common;

use common::programs::{program, python};
use common::running::Running;
use common::{read_frame, round_trip, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// A browser with the page open twice.
struct Browser {
    child: Child,
    keyboard: ChildStdin,
    shown: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
}

impl Browser {
    fn open(url: &str) -> Self {
        drop(program("chromium", "chromium"));
        let folder = tempfile::tempdir().unwrap();
        let mut script = python("chromium_peer.py");
        script.arg(url).arg(folder.path());
        let mut child = script.spawn().unwrap();
        Self {
            keyboard: child.stdin.take().unwrap(),
            shown: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
            _folder: folder,
        }
    }

    /// Types a line into one of the pages.
    async fn types(&mut self, page: usize, line: &str) {
        let line = format!("{page} {line}\n");
        self.keyboard.write_all(line.as_bytes()).await.unwrap();
    }

    /// Waits until each page has shown what it begins with, and fails when it shows another line.
    async fn both_show(&mut self, what: &str) {
        let mut missing = vec![format!("0 {what}"), format!("1 {what}")];
        while !missing.is_empty() {
            let line = within(self.shown.next_line()).await.unwrap();
            let line = line.unwrap_or_else(|| panic!("it ends before {missing:?}"));
            match missing.iter().position(|missing| *missing == line) {
                Some(n) => drop(missing.remove(n)),
                None => assert!(line[1..].starts_with(" state"), "'{line}', not {missing:?}"),
            }
        }
    }

    /// The pages are looked at once more, and the browser ends.
    async fn close(mut self) {
        drop(self.keyboard);
        let line = within(self.shown.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some("ok"));
        assert!(within(self.child.wait()).await.unwrap().success());
    }
}

#[tokio::test]
async fn chromium_chats() {
    let server = Running::start("chat_browser", "auto://127.0.0.1:0").await;
    let address = format!("auto://127.0.0.1:{}", server.port);
    let url = format!("http://localhost:{}/", server.port);
    let mut browser = Browser::open(&url);
    browser.both_show("state connected").await;

    // one port for all tells by the first byte who it is, so frames begin
    let mut tcp = server.dial().await;
    within(round_trip(&mut tcp, b"hello from TCP")).await;
    browser.both_show("line hello from TCP").await;
    let long = "ä€𝄞 ".repeat(100);
    for (page, line) in [
        (0, "hello from a page"),
        (1, "<img src=x onerror='tell(\"line hurt\")'> & <b>bold</b>"),
        (0, long.trim_end()),
    ] {
        browser.types(page, line).await;
        let heard = within(read_frame(&mut tcp)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), line);
        browser.both_show(&format!("line {line}")).await;
    }
    let script = "<script>tell('line hurt')</script>";
    within(round_trip(&mut tcp, script.as_bytes())).await;
    browser.both_show(&format!("line {script}")).await;

    // the pages come back to a server that comes back
    let (_, status) = server.interrupt().await;
    assert!(status.success(), "{status}");
    browser.both_show("state not connected, trying again").await;
    let server = Running::start("chat_browser", &address).await;
    browser.both_show("state connected").await;
    browser.types(1, "still here").await;
    browser.both_show("line still here").await;
    browser.close().await;
    let (_, status) = server.interrupt().await;
    assert!(status.success(), "{status}");
}
