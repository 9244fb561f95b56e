use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::*;
use crate::ErrorKind;

const PART: usize = 64;

fn memory() -> Arc<Memory> {
    Memory::new(PARTS * PART)
}

fn named(name: &str) -> Holder {
    Holder::Named(None, name.into())
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn a_caller_of_many_requests_gets_a_share_and_others_still_get_theirs() {
    let memory = memory();
    let open = |name: &str| memory.open(named(name));
    let greedy: Vec<_> = (0..10).map(|_| open("greedy")).collect();
    let held: Vec<_> = greedy
        .iter()
        .map(|account| account.take(PART / 4))
        .collect();
    let n = held.iter().filter(|held| held.is_ok()).count();
    assert_eq!(n, 4, "a quarter of the whole");
    let refused = held.iter().find_map(|held| held.as_ref().err()).unwrap();
    assert_eq!(refused.kind, ErrorKind::Overloaded);
    // Others take the rest, but for a part for those who hold nothing.
    let second = open("second").take(PART).unwrap();
    let third = open("third").take(PART).unwrap();
    let fourth = open("fourth");
    let whole_share = fourth.take(PART).unwrap();
    assert!(open("fourth").take(1).is_err());
    drop((second, third, whole_share, held));
    assert!(open("greedy").take(PART).is_ok());
}

#[test]
fn a_single_request_may_be_larger_than_the_share_but_leaves_a_part() {
    let memory = memory();
    let large = memory.open(named("a"));
    let held = large.take(3 * PART).unwrap();
    assert!(large.take(1).is_err(), "no request has more");
    let other = memory.open(named("b"));
    assert!(other.take(PART).is_ok());
    drop(held);
    let error = large.take(3 * PART + 1).err().unwrap();
    assert_eq!(error.kind, ErrorKind::PayloadTooLarge);
}

#[tokio::test]
async fn answers_wait_their_turn_and_are_refused_where_nothing_can_come_back() {
    let memory = memory();
    let open = || memory.open(named("a"));
    let (first, second, third) = (open(), open(), open());
    let one = first.take_for_answer(PART / 2, far()).await.unwrap();
    let two = second.take_for_answer(PART / 2, far()).await.unwrap();
    let mut large = Box::pin(third.take_for_answer(PART, far()));
    assert!(large.as_mut().now_or_never().is_none());
    // Smaller, and later: it does not overtake.
    let fourth = open();
    let mut small = Box::pin(fourth.take_for_answer(1, far()));
    assert!(small.as_mut().now_or_never().is_none());
    drop(one);
    assert!(small.as_mut().now_or_never().is_none());
    drop(two);
    let large = large.await.unwrap();
    drop(large);
    drop(small.await.unwrap());

    // Bodies alone give nothing back while they wait.
    let bodies: Vec<_> = (0..4).map(|i| memory.open(named(&i.to_string()))).collect();
    let held: Vec<_> = bodies.iter().map(|body| body.take(PART).unwrap()).collect();
    let refused = bodies[0].take_for_answer(1, far()).await.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::Overloaded);
    drop(held);
}

#[tokio::test]
async fn the_first_in_line_goes_on_where_bodies_fill_the_share() {
    let memory = memory();
    let accounts: Vec<_> = (0..4).map(|_| memory.open(named("a"))).collect();
    let bodies: Vec<_> = accounts.iter().map(|a| a.take(PART / 4).unwrap()).collect();
    for (account, body) in accounts.iter().zip(bodies) {
        let answer = account.take_for_answer(PART / 2, far()).await.unwrap();
        drop((answer, body));
    }
}

#[test]
fn nothing_is_left_of_who_has_gone() {
    let memory = memory();
    for i in 0..100 {
        drop(memory.open(named(&i.to_string())).take(1).unwrap());
    }
    let (free, n) = memory.change(|state| (state.free, state.callers.len()));
    assert_eq!((free, n), (PARTS * PART, 0));
}
