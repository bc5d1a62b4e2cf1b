//! Tests of the circuit breaker with paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // as tests may

use super::*;

async fn fail(breaker: &CircuitBreaker) -> ErrorKind {
    let failed = async { Err::<(), _>(Error::new(ErrorKind::ConnectionRefused, "connect")) };
    breaker.call(failed).await.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn opens_probes_and_closes() {
    let breaker = CircuitBreaker::new(BreakerConfig::default());
    let mut states = breaker.watch();
    for _ in 0..5 {
        assert_eq!(fail(&breaker).await, ErrorKind::ConnectionRefused);
    }
    assert_eq!(*states.borrow_and_update(), BreakerState::Open);
    assert_eq!(fail(&breaker).await, ErrorKind::CircuitOpen);
    tokio::time::advance(Duration::from_secs(30)).await;
    let (first, second) = (breaker.admit().unwrap(), breaker.admit().unwrap());
    assert_eq!(breaker.admit().err().unwrap().code(), -604);
    drop(first); // cancelled: another may try
    let third = breaker.admit().unwrap();
    second.ended(Some(true));
    third.ended(Some(true));
    assert_eq!(*states.borrow_and_update(), BreakerState::Closed);
    assert_eq!(breaker.statistics().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_again_and_late_results_do_not_count() {
    let breaker = CircuitBreaker::new(BreakerConfig::default());
    let late = breaker.admit().unwrap();
    for _ in 0..5 {
        fail(&breaker).await;
    }
    tokio::time::advance(Duration::from_secs(31)).await;
    let probe = breaker.admit().unwrap();
    late.ended(Some(false));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    probe.ended(Some(false));
    assert!(breaker.is_open());
}

#[tokio::test]
async fn what_does_not_count_and_the_rate() {
    let breaker = CircuitBreaker::new(BreakerConfig {
        failures: 100,
        failure_rate: Some(0.5),
        window: 4,
        ..BreakerConfig::default()
    });
    for _ in 0..9 {
        let ours = async { Err::<(), _>(Error::new(ErrorKind::InvalidArgument, "call")) };
        breaker.call(ours).await.unwrap_err();
    }
    for _ in 0..2 {
        breaker.call(async { Ok(()) }).await.unwrap();
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker).await;
    }
    assert_eq!(breaker.state(), BreakerState::Open);
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_beside_calls() {
    let breaker = CircuitBreaker::new(BreakerConfig::default());
    for _ in 0..4 {
        breaker.not_reached();
        breaker.pass().unwrap();
    }
    breaker.not_reached();
    assert!(breaker.is_open());
    let refused = breaker.pass().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CircuitOpen);
    assert_eq!(breaker.opened().await.kind(), ErrorKind::CircuitOpen);
    // not reached again: it does not stay open for longer
    tokio::time::advance(Duration::from_secs(20)).await;
    breaker.not_reached();
    breaker.reached(true);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "at once");
    breaker.pass().unwrap();
    let probe = breaker.admit().unwrap();
    assert!(breaker.admit().is_err(), "one has succeeded already");
    probe.ended(Some(true));
    assert_eq!(breaker.state(), BreakerState::Closed);
    let seen = breaker.statistics();
    assert_eq!((seen.successes, seen.failures, seen.refused), (2, 6, 2));
}

#[tokio::test(start_paused = true)]
async fn without_calls_a_connection_is_enough() {
    let breaker = CircuitBreaker::new(BreakerConfig {
        probes: 9,
        ..BreakerConfig::default()
    });
    for _ in 0..5 {
        breaker.not_reached();
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    breaker.pass().unwrap();
    assert_eq!(breaker.state(), BreakerState::Open, "nothing is known yet");
    // another connect in vain
    breaker.not_reached();
    assert!(breaker.pass().is_err());
    breaker.reached(false);
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert_eq!(breaker.statistics().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_that_it_has_opened() {
    let breaker = CircuitBreaker::new(BreakerConfig {
        failures: 1,
        ..BreakerConfig::default()
    });
    let mut waits = Box::pin(breaker.opened());
    let early = tokio::time::timeout(Duration::from_secs(1), &mut waits).await;
    assert!(early.is_err());
    breaker.not_reached();
    assert_eq!(waits.await.kind(), ErrorKind::CircuitOpen);
}
