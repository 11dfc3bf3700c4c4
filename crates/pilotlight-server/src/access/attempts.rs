//! Logins that failed, by the address they came from: who guesses must wait longer and longer.
//!
//! Secrets that Pilotlight made cannot be guessed, so whoever offers what looks like one is answered at once: a job with an old
//! secret, of which there may be thousands, slows nobody down. What people thought up can be guessed, at a few tries a minute.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::secret::is_generated;

/// Failures that cost nothing: a person may mistype.
const FREE: u32 = 5;
/// What the first one beyond costs, and each further one twice as much, up to the most.
const DELAY_MIN: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Longest that a try waits for its turn. One that would wait longer is refused unseen.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// After so long without a failure, an address has none.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Addresses remembered; beyond it the one is forgotten that failed longest ago.
const ADDRESSES_MAX: usize = 4096;

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    failed: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    /// From when on another try is looked at.
    free_at: Instant,
}

/// When a try is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    After(Duration),
    /// Not at all, and so refused.
    Never,
}

impl Attempts {
    /// When to look at what somebody at `address` offers as a secret. A try that waits has taken its turn.
    pub(crate) fn turn(&self, address: Option<IpAddr>, offered: &[u8], now: Instant) -> Turn {
        if is_generated(offered) {
            return Turn::Now;
        }
        let mut failed = self.failed.lock();
        let Some(failures) = failed.get_mut(&place(address)).filter(|failures| failures.count > FREE) else {
            return Turn::Now;
        };
        let wait = failures.free_at.saturating_duration_since(now);
        if wait > WAIT_MAX {
            return Turn::Never;
        }
        failures.free_at = failures.free_at.max(now) + delay(failures.count);
        if wait.is_zero() { Turn::Now } else { Turn::After(wait) }
    }

    /// Notes that a try failed.
    pub(crate) fn failed(&self, address: Option<IpAddr>, now: Instant) {
        let mut failed = self.failed.lock();
        let place = place(address);
        let is_forgotten =
            |failures: &Failures| now.saturating_duration_since(failures.last) > FORGOTTEN_AFTER;
        if !failed.contains_key(&place) && failed.len() >= ADDRESSES_MAX {
            failed.retain(|_, failures| !is_forgotten(failures));
            let oldest = failed.iter().min_by_key(|(_, failures)| failures.last).map(|(place, _)| *place);
            if let Some(oldest) = oldest.filter(|_| failed.len() >= ADDRESSES_MAX) {
                failed.remove(&oldest);
            }
        }
        let fresh = Failures { count: 0, last: now, free_at: now };
        let failures = failed.entry(place).or_insert(fresh);
        if is_forgotten(failures) {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        if failures.count > FREE {
            failures.free_at = failures.free_at.max(now + delay(failures.count));
        }
    }
}

fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(FREE + 1).min(16);
    (DELAY_MIN * (1 << doublings)).min(DELAY_MAX)
}

/// Whom an address stands for. Whoever has one of IPv6 has a whole network of them; Unix sockets are one place.
fn place(address: Option<IpAddr>) -> IpAddr {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        Some(address) => address,
        None => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Secret;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn who_guesses_waits_longer_and_longer_and_nobody_else_does() {
        let attempts = Attempts::default();
        let (guesser, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let mut now = Instant::now();
        for _ in 0..FREE {
            assert_eq!(attempts.turn(guesser, b"guess", now), Turn::Now);
            attempts.failed(guesser, now);
        }
        let mut tries = FREE;
        let began = now;
        while now < began + Duration::from_secs(3600) {
            match attempts.turn(guesser, b"guess", now) {
                Turn::Now => {
                    tries += 1;
                    attempts.failed(guesser, now);
                }
                Turn::After(wait) => {
                    now += wait;
                    tries += 1;
                    attempts.failed(guesser, now);
                }
                Turn::Never => now += Duration::from_secs(1),
            }
        }
        assert!((40..150).contains(&tries), "{tries} tries in an hour");
        assert_eq!(attempts.turn(other, b"guess", now), Turn::Now);
        // What cannot be guessed is not slowed down.
        assert_eq!(attempts.turn(guesser, Secret::generate().unwrap().as_str().as_bytes(), now), Turn::Now);
        let later = now + FORGOTTEN_AFTER + Duration::from_secs(1);
        attempts.failed(guesser, later);
        assert_eq!(attempts.turn(guesser, b"guess", later), Turn::Now, "forgotten");
    }

    #[test]
    fn tries_at_the_same_time_take_turns() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..=FREE {
            attempts.failed(None, now);
        }
        let turns: Vec<_> = (0..20).map(|_| attempts.turn(None, b"guess", now)).collect();
        assert_eq!(turns[0], Turn::After(DELAY_MIN));
        assert_eq!(turns[1], Turn::After(DELAY_MIN * 2));
        assert_eq!(turns[7], Turn::After(WAIT_MAX));
        assert!(turns[8..].iter().all(|turn| *turn == Turn::Never), "{turns:?}");
    }

    #[test]
    fn addresses_are_forgotten_before_they_fill_the_memory() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..(ADDRESSES_MAX as u32 + 100) {
            attempts.failed(Some(IpAddr::V4(number.into())), now + Duration::from_millis(number.into()));
        }
        assert_eq!(attempts.failed.lock().len(), ADDRESSES_MAX);
        // One network is one guesser.
        assert_eq!(place(address("2001:db8::1")), place(address("2001:db8::ffff:1")));
        assert_eq!(place(address("::ffff:10.0.0.1")), place(address("10.0.0.1")));
        assert_ne!(place(address("2001:db8:0:1::1")), place(address("2001:db8::1")));
    }
}
