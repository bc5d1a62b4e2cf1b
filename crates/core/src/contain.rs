//! Keeps a panic of the user's event handlers from ending what is not theirs: an accept loop, a
//! client, the rest of a connection's end.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Runs `call`; a panic ends there. The panic hook has reported it.
pub(crate) fn contain(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("an event handler panicked");
    }
}

/// As [`contain`], for what takes time.
pub(crate) async fn contain_async(call: impl Future<Output = ()>) {
    let mut call = pin!(call);
    poll_fn(|cx| {
        let poll = || call.as_mut().poll(cx);
        catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|_| {
            tracing::error!("an event handler panicked");
            Poll::Ready(())
        })
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_end_here() {
        contain(|| panic!("at once"));
        contain_async(async { panic!("in a future") }).await;
        let mut done = false;
        contain_async(async {
            tokio::task::yield_now().await;
            done = true;
        })
        .await;
        assert!(done);
    }
}
