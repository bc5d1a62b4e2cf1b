//! Clients.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use network_system::config::TlsClientConfig;
use network_system::{Client, Error, ErrorKind, Result, Workers};

use crate::guard::{bytes, missing, outside, run, text, wait};
use crate::life::Life;
use crate::{ns_callbacks, ns_statistics, session};

struct Settings {
    url: String,
    ca: Option<String>,
    callbacks: ns_callbacks,
}

/// A client and the thread that it runs on.
struct Running {
    client: Client,
    // after the client, which needs it to its end
    _worker: Workers,
}

/// A client, which can be started and stopped, and keeps its connection in between.
#[allow(non_camel_case_types)]
pub struct ns_client(Life<Settings, Running>);

impl ns_client {
    fn running(&self, action: &'static str) -> Result<Arc<Running>> {
        self.0.running().ok_or_else(|| {
            Error::new(ErrorKind::ConnectionClosed, action).because("the client is not started")
        })
    }
}

fn start(settings: &Settings) -> Result<Running> {
    let told = settings.callbacks;
    let worker = Workers::new(1)?;
    let mut builder = Client::builder(settings.url.as_str()).workers(&worker);
    if let Some(ca) = &settings.ca {
        builder = builder.tls(TlsClientConfig::default().ca(ca.as_str()));
    }
    let client = builder
        .on_connect(move |session| told.connected(session))
        .on_disconnect(move |session, reason| told.disconnected(session, reason))
        .on_message(move |session, message| {
            told.received(&session, &message);
            std::future::ready(())
        })
        .start()?;
    Ok(Running {
        client,
        _worker: worker,
    })
}

fn close(running: Running, deadline: Duration) {
    let Running { client, _worker } = running;
    let _ = wait(client.close(deadline));
}

/// # Safety
/// `client` is NULL, or one that ns_client_new gave and that is not freed.
unsafe fn known<'a>(client: *const ns_client) -> Result<&'a ns_client> {
    // SAFETY: the caller promises it.
    unsafe { client.as_ref() }.ok_or_else(|| missing("client"))
}

/// Makes a client for a URL, such as "tcp://127.0.0.1:8080". It does not connect yet. Free it with
/// ns_client_free.
///
/// # Safety
/// `url` is a C string; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_new(url: *const c_char, out: *mut *mut ns_client) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (url, out) = unsafe { (text(url, "url")?, out.as_mut()) };
        let out = out.ok_or_else(|| missing("out"))?;
        let settings = Settings {
            url: url.into(),
            ca: None,
            callbacks: ns_callbacks::NONE,
        };
        *out = Box::into_raw(Box::new(ns_client(Life::new(settings))));
        Ok(())
    })
}

/// Sets what is called for events, from the next start on. NULL: nothing.
///
/// # Safety
/// As ns_server_set_callbacks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_set_callbacks(
    client: *mut ns_client,
    callbacks: *const ns_callbacks,
) -> i32 {
    run(|| {
        outside("set callbacks")?;
        // SAFETY: this function's contract.
        let (client, callbacks) = unsafe { (known(client)?, callbacks.as_ref()) };
        let callbacks = callbacks.copied().unwrap_or(ns_callbacks::NONE);
        client.0.set(|settings| settings.callbacks = callbacks);
        Ok(())
    })
}

/// Sets the file of the authority (PEM) that the client trusts, instead of the system's.
///
/// # Safety
/// The client is not freed; `ca` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_set_ca(client: *mut ns_client, ca: *const c_char) -> i32 {
    run(|| {
        outside("set the authority")?;
        // SAFETY: this function's contract.
        let (client, ca) = unsafe { (known(client)?, text(ca, "ca")?) };
        client.0.set(|settings| settings.ca = Some(ca.into()));
        Ok(())
    })
}

/// Begins to connect, and returns before there is a connection; connects anew when it is lost. -7
/// when it is started already, -1 when the URL makes no sense.
///
/// # Safety
/// The client is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_start(client: *mut ns_client) -> i32 {
    run(|| {
        outside("start the client")?;
        // SAFETY: this function's contract.
        match unsafe { known(client) }?.0.start(start)? {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::AlreadyExists, "start the client")),
        }
    })
}

/// Waits for the connection, for at most so many milliseconds (-4). -603 when it is not started.
///
/// # Safety
/// The client is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_wait_connected(
    client: *const ns_client,
    timeout_ms: u64,
) -> i32 {
    run(|| {
        outside("wait for the connection")?;
        // SAFETY: this function's contract.
        let running = unsafe { known(client) }?.running("wait for the connection")?;
        let timeout = Duration::from_millis(timeout_ms);
        // inside the future: a timer needs the runtime in which it is made
        let connected = async { tokio::time::timeout(timeout, running.client.connected()).await };
        match wait(connected)? {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "wait for the connection")),
        }
    })
}

/// Queues a message on the connection that is up; -603 when there is none. For the rest as
/// ns_session_send.
///
/// # Safety
/// The client is not freed; `length` bytes can be read at `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_send(
    client: *const ns_client,
    data: *const u8,
    length: usize,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (client, data) = unsafe { (known(client)?, bytes(data, length)?) };
        let current = client.running("send")?.client.session();
        let current = current.ok_or_else(|| {
            Error::new(ErrorKind::ConnectionClosed, "send").because("there is no connection")
        })?;
        session::send(&current, data)
    })
}

/// Stops: writes what is queued, for at most so many milliseconds, and closes. -603 when it is not
/// started.
///
/// # Safety
/// The client is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_stop(client: *mut ns_client, deadline_ms: u64) -> i32 {
    run(|| {
        outside("stop the client")?;
        let deadline = Duration::from_millis(deadline_ms);
        // SAFETY: this function's contract.
        let client = unsafe { known(client) }?;
        match client.0.stop(|_| {}, |running| close(running, deadline)) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::ConnectionClosed, "stop the client")
                .because("it is not started")),
        }
    })
}

/// Waits until the client is stopped; returns at once when it is not started.
///
/// # Safety
/// The client is not freed before the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_wait(client: *const ns_client) -> i32 {
    run(|| {
        outside("wait for the client")?;
        // SAFETY: this function's contract.
        unsafe { known(client) }?.0.wait();
        Ok(())
    })
}

/// What the started client has done, over all its connections.
///
/// # Safety
/// The client is not freed; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_statistics(
    client: *const ns_client,
    out: *mut ns_statistics,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (client, out) = unsafe { (known(client)?, out.as_mut()) };
        let statistics = client.running("give its statistics")?.client.statistics();
        *out.ok_or_else(|| missing("out"))? = statistics.into();
        Ok(())
    })
}

/// Stops the client at once if it is started, and frees it. NULL is nothing. Not from a callback (-1).
///
/// # Safety
/// The client is of ns_client_new, and no call uses it now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_client_free(client: *mut ns_client) -> i32 {
    run(|| {
        if client.is_null() {
            return Ok(());
        }
        outside("free the client")?;
        // SAFETY: made by Box::into_raw, and given back once.
        let client = unsafe { Box::from_raw(client) };
        client
            .0
            .stop(|_| {}, |running| close(running, Duration::ZERO));
        Ok(())
    })
}
