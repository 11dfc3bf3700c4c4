//! What becomes of a role whose holder goes away at any point.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pilotlight_cache::Key;
use pilotlight_cache::leases::{Follower, Leader, Leases, Loss, Role, Turn};

const LONG: Duration = Duration::from_secs(600);

fn key() -> Key {
    Key::new("cpp-kernel:a")
}

fn lead(leases: &Leases) -> Leader {
    match leases.ask(&key(), LONG, false) {
        Role::Leader(leader) => leader,
        Role::Follower(_) => panic!("somebody leads"),
    }
}

fn follow(leases: &Leases) -> Follower {
    match leases.ask(&key(), LONG, false) {
        Role::Follower(follower) => follower,
        Role::Leader(_) => panic!("nobody leads"),
    }
}

fn turn(follower: &mut Follower) -> Option<Turn> {
    let mut turn = pin!(follower.turn());
    match turn.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(turn) => Some(turn),
        Poll::Pending => None,
    }
}

#[test]
fn a_dropped_leader_passes_its_lease_on() {
    let leases = Leases::default();
    let leader = lead(&leases);
    let (mut first, mut second) = (follow(&leases), follow(&leases));
    assert!(turn(&mut first).is_none());
    drop(leader);
    let Some(Turn::Lead(next, Loss::Gone)) = turn(&mut first) else { panic!("it does not lead") };
    assert!(next.leads() && turn(&mut second).is_none());
    next.give_up();
    assert!(matches!(turn(&mut second), Some(Turn::Lead(_, Loss::GivenUp))));
    assert_eq!(leases.counts().open, 0, "that leader was dropped at once");
}

#[test]
fn a_follower_that_is_dropped_passes_on_what_it_was_given_and_did_not_take() {
    let leases = Leases::default();
    let leader = lead(&leases);
    let (first, mut second) = (follow(&leases), follow(&leases));
    drop(leader);
    assert!(turn(&mut second).is_none(), "the first was told");
    drop(first);
    assert!(matches!(turn(&mut second), Some(Turn::Lead(..))));
}

#[test]
fn a_follower_that_is_dropped_gives_up_its_place() {
    let leases = Leases::default();
    let leader = lead(&leases);
    let (first, mut second) = (follow(&leases), follow(&leases));
    drop(first);
    assert_eq!(leases.counts().waiting, 1);
    drop(leader);
    assert!(matches!(turn(&mut second), Some(Turn::Lead(..))));
}

#[test]
fn a_leader_that_outlives_its_lease_changes_nothing() {
    let leases = Leases::default();
    let late = lead(&leases);
    leases.put(&key());
    let current = lead(&leases);
    assert!(!late.leads() && !late.renew());
    drop(late);
    assert!(current.leads());
}

#[test]
fn a_wait_that_was_cancelled_may_go_on() {
    let leases = Leases::default();
    let leader = lead(&leases);
    let mut follower = follow(&leases);
    for _ in 0..3 {
        assert!(turn(&mut follower).is_none());
    }
    leases.put(&key());
    assert!(matches!(turn(&mut follower), Some(Turn::Look)));
    drop(leader);
}

#[test]
fn what_a_compile_takes_is_the_median_of_the_latest() {
    let leases = Leases::default();
    assert_eq!(leases.expected(key().kind()), None);
    let leader = lead(&leases);
    leases.put(&key());
    assert!(leases.expected(key().kind()).is_some_and(|expected| expected < Duration::from_secs(30)));
    drop(leader);
}
