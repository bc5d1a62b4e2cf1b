//! Servers.

use std::ffi::c_char;
use std::time::Duration;

use network_system::config::TlsServerConfig;
use network_system::{Error, ErrorKind, Message, Result, Server};

use crate::guard::{bytes, missing, outside, run, text, wait};
use crate::life::Life;
use crate::{ns_callbacks, ns_statistics};

struct Settings {
    url: String,
    workers: usize,
    tls: Option<TlsServerConfig>,
    callbacks: ns_callbacks,
}

/// A server, which can be started and stopped.
#[allow(non_camel_case_types)]
pub struct ns_server(Life<Settings, Server>);

impl ns_server {
    fn running(&self, action: &'static str) -> Result<std::sync::Arc<Server>> {
        let error = || Error::new(ErrorKind::ServerNotStarted, action);
        self.0.running().ok_or_else(error)
    }
}

fn start(settings: &Settings) -> Result<Server> {
    let told = settings.callbacks;
    let mut builder = Server::builder()
        .listen(settings.url.as_str())
        .workers(settings.workers);
    if let Some(tls) = &settings.tls {
        builder = builder.tls(tls.clone());
    }
    let builder = builder
        .on_connect(move |session| told.connected(session))
        .on_disconnect(move |session, reason| told.disconnected(session, reason))
        .on_message(move |session, message| {
            told.received(&session, &message);
            std::future::ready(())
        });
    wait(builder.start())?
}

/// # Safety
/// `server` is NULL, or one that ns_server_new gave and that is not freed.
unsafe fn known<'a>(server: *const ns_server) -> Result<&'a ns_server> {
    // SAFETY: the caller promises it.
    unsafe { server.as_ref() }.ok_or_else(|| missing("server"))
}

/// Makes a server for a URL, such as "tcp://0.0.0.0:8080" or "tls://[::]:8443?framing=lines". It does
/// not listen yet. Free it with ns_server_free.
///
/// # Safety
/// `url` is a C string; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_new(url: *const c_char, out: *mut *mut ns_server) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (url, out) = unsafe { (text(url, "url")?, out.as_mut()) };
        let out = out.ok_or_else(|| missing("out"))?;
        let settings = Settings {
            url: url.into(),
            workers: 1,
            tls: None,
            callbacks: ns_callbacks::NONE,
        };
        *out = Box::into_raw(Box::new(ns_server(Life::new(settings))));
        Ok(())
    })
}

/// Sets what is called for events, from the next start on. NULL: nothing.
///
/// # Safety
/// The server is not freed; `callbacks` is NULL or can be read, and what it names may be called from
/// any thread until the server is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_set_callbacks(
    server: *mut ns_server,
    callbacks: *const ns_callbacks,
) -> i32 {
    run(|| {
        outside("set callbacks")?;
        // SAFETY: this function's contract.
        let (server, callbacks) = unsafe { (known(server)?, callbacks.as_ref()) };
        let callbacks = callbacks.copied().unwrap_or(ns_callbacks::NONE);
        server.0.set(|settings| settings.callbacks = callbacks);
        Ok(())
    })
}

/// Sets the number of threads, from the next start on. Default: 1.
///
/// # Safety
/// The server is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_set_workers(server: *mut ns_server, workers: usize) -> i32 {
    run(|| {
        outside("set workers")?;
        // SAFETY: this function's contract.
        let server = unsafe { known(server) }?;
        server.0.set(|settings| settings.workers = workers.max(1));
        Ok(())
    })
}

/// Sets the certificate chain and the key (files in PEM form), from the next start on.
///
/// # Safety
/// The server is not freed; both are C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_set_tls(
    server: *mut ns_server,
    certificate: *const c_char,
    key: *const c_char,
) -> i32 {
    run(|| {
        outside("set TLS")?;
        // SAFETY: this function's contract.
        let (server, certificate, key) = unsafe {
            (
                known(server)?,
                text(certificate, "certificate")?,
                text(key, "key")?,
            )
        };
        let tls = TlsServerConfig::new(certificate, key);
        server.0.set(|settings| settings.tls = Some(tls));
        Ok(())
    })
}

/// Starts to listen. -661 when it runs already, -662 when the address cannot be had.
///
/// # Safety
/// The server is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_start(server: *mut ns_server) -> i32 {
    run(|| {
        outside("start the server")?;
        // SAFETY: this function's contract.
        match unsafe { known(server) }?.0.start(start)? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::ServerAlreadyRunning,
                "start the server",
            )),
        }
    })
}

/// Stops: sessions finish what they have received and queued, for at most so many milliseconds.
/// -660 when it does not run.
///
/// # Safety
/// The server is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_stop(server: *mut ns_server, deadline_ms: u64) -> i32 {
    run(|| {
        outside("stop the server")?;
        let deadline = Duration::from_millis(deadline_ms);
        let end = |server: Server| drop(wait(server.shutdown(deadline)));
        // SAFETY: this function's contract.
        match unsafe { known(server) }?.0.stop(|_| {}, end) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::ServerNotStarted, "stop the server")),
        }
    })
}

/// Waits until the server is stopped; returns at once when it does not run.
///
/// # Safety
/// The server is not freed before the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_wait(server: *const ns_server) -> i32 {
    run(|| {
        outside("wait for the server")?;
        // SAFETY: this function's contract.
        unsafe { known(server) }?.0.wait();
        Ok(())
    })
}

/// Writes the address that the running server listens on, with its real port, as a C string into
/// `capacity` bytes. -1 when it does not fit.
///
/// # Safety
/// The server is not freed; `capacity` bytes can be written at `buffer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_address(
    server: *const ns_server,
    buffer: *mut c_char,
    capacity: usize,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let server = unsafe { known(server) }?.running("give its address")?;
        let address = server.listening().first().map(ToString::to_string);
        let address = address.unwrap_or_default();
        if buffer.is_null() || address.len() >= capacity {
            return Err(Error::new(ErrorKind::InvalidArgument, "give the address")
                .because(format!("it needs {} bytes", address.len() + 1)));
        }
        // SAFETY: the buffer has room for it and a zero byte, and cannot overlap with our string.
        unsafe {
            std::ptr::copy_nonoverlapping(address.as_ptr().cast(), buffer, address.len());
            *buffer.add(address.len()) = 0;
        }
        Ok(())
    })
}

/// Sends a copy of a message to every session, without waiting for room.
///
/// # Safety
/// The server is not freed; `length` bytes can be read at `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_broadcast(
    server: *const ns_server,
    data: *const u8,
    length: usize,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (server, data) = unsafe { (known(server)?, bytes(data, length)?) };
        let server = server.running("broadcast")?;
        server.sessions().broadcast(Message::copy_from(data));
        Ok(())
    })
}

/// What the running server has done since its start.
///
/// # Safety
/// The server is not freed; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_statistics(
    server: *const ns_server,
    out: *mut ns_statistics,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (server, out) = unsafe { (known(server)?, out.as_mut()) };
        let statistics = server.running("give its statistics")?.statistics();
        *out.ok_or_else(|| missing("out"))? = statistics.into();
        Ok(())
    })
}

/// Stops the server at once if it runs, and frees it. NULL is nothing. Not from a callback (-1).
///
/// # Safety
/// The server is of ns_server_new, and no call uses it now or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_server_free(server: *mut ns_server) -> i32 {
    run(|| {
        if server.is_null() {
            return Ok(());
        }
        outside("free the server")?;
        // SAFETY: made by Box::into_raw, and given back once.
        let server = unsafe { Box::from_raw(server) };
        let end = |server: Server| drop(wait(server.shutdown(Duration::ZERO)));
        server.0.stop(|_| {}, end);
        Ok(())
    })
}
