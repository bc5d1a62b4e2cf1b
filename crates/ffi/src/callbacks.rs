//! What the caller wants to be told, and how it is told.

use std::ffi::{CString, c_char, c_void};

use network_system::{CloseReason, Message, Session};

use crate::ns_session;

/// What to call for events. Each may be NULL. The session and the bytes are lent for the time of the
/// call; see ns_session_retain. For one session the calls come one after the other, for several
/// sessions at the same time where there are several workers.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct ns_callbacks {
    /// Given to every call. It must stay valid until the handle is freed.
    pub user_data: *mut c_void,
    /// A connection is open.
    pub on_connect: Option<unsafe extern "C" fn(*mut c_void, *const ns_session)>,
    /// A message has come.
    pub on_message: Option<unsafe extern "C" fn(*mut c_void, *const ns_session, *const u8, usize)>,
    /// A connection has ended, and why ("peer closed", "cut" ...).
    pub on_disconnect: Option<unsafe extern "C" fn(*mut c_void, *const ns_session, *const c_char)>,
}

// SAFETY: the header demands callbacks that may run on any thread with this user data.
unsafe impl Send for ns_callbacks {}
// SAFETY: as above, and at the same time.
unsafe impl Sync for ns_callbacks {}

impl ns_callbacks {
    pub(crate) const NONE: Self = Self {
        user_data: std::ptr::null_mut(),
        on_connect: None,
        on_message: None,
        on_disconnect: None,
    };

    pub(crate) fn connected(&self, session: &Session) {
        if let Some(call) = self.on_connect {
            // SAFETY: the caller gave this function for this; the session lives during the call.
            unsafe { call(self.user_data, ns_session::lend(session)) };
        }
    }

    pub(crate) fn received(&self, session: &Session, message: &Message) {
        if let Some(call) = self.on_message {
            let bytes = message.as_bytes();
            // SAFETY: as above; the message lives during the call, too.
            unsafe {
                call(
                    self.user_data,
                    ns_session::lend(session),
                    bytes.as_ptr(),
                    bytes.len(),
                );
            }
        }
    }

    pub(crate) fn disconnected(&self, session: &Session, reason: &CloseReason) {
        if let Some(call) = self.on_disconnect {
            let text = CString::new(reason.to_string()).unwrap_or_default();
            // SAFETY: as above; the text lives during the call, too.
            unsafe { call(self.user_data, ns_session::lend(session), text.as_ptr()) };
        }
    }
}
