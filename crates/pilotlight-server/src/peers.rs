//! How many connections each address has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections by the address they come from, of one front-end. Counted only where they are limited.
#[derive(Debug)]
pub(crate) struct Peers {
    open: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
}

/// The right of one connection to be open.
#[derive(Debug)]
pub(crate) struct Peer {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    /// None where there is no limit.
    pub(crate) fn new(max: Option<usize>) -> Option<Arc<Self>> {
        max.map(|max| Arc::new(Self { open: Mutex::default(), max }))
    }

    /// Counts a connection from `address`, unless that has as many as it may. An IPv4 address is one, however it is written.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Peer> {
        let address = address.to_canonical();
        let mut open = self.open.lock();
        let count = open.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Peer { peers: Arc::clone(self), address })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_count_and_nothing_stays_of_who_left() {
        assert!(Peers::new(None).is_none());
        let peers = Peers::new(Some(1)).unwrap();
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        let first = peers.admit("10.0.0.1".parse().unwrap()).unwrap();
        assert!(peers.admit(mapped).is_none());
        let other = peers.admit("10.0.0.2".parse().unwrap()).unwrap();
        drop(first);
        drop(peers.admit(mapped).unwrap());
        drop(other);
        assert!(peers.open.lock().is_empty());
    }
}
