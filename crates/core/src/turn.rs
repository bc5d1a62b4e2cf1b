//! How long a connection whose peer sends without end keeps its thread before the others there have
//! their turn.

use std::time::Duration;

use tokio::time::Instant;

const TURN: Duration = Duration::from_millis(1);

/// Whether the turn is over that began at `since`, or begins now.
#[cold]
pub(crate) fn is_over(since: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    now.saturating_duration_since(*since.get_or_insert(now)) >= TURN
}
