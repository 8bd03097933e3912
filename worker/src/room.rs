//! How many images go through the networks at a time: fewer while memory is short.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a worker has learned about its memory. Bytes do not depend on it: each image is made by itself.
#[derive(Debug)]
pub struct Room {
    most: AtomicUsize,
}

impl Default for Room {
    /// As many as are wished for.
    fn default() -> Self {
        Self { most: AtomicUsize::new(usize::MAX) }
    }
}

impl Room {
    /// How many of `wished` to make at a time; at least one.
    pub fn of(&self, wished: usize) -> usize {
        wished.min(self.most.load(Ordering::Relaxed)).max(1)
    }

    /// With `tried` at a time memory was short: gives how many to try now, or none where one was too many.
    pub fn shrink(&self, tried: usize) -> Option<usize> {
        let fewer = tried / 2;
        self.most.store(fewer.max(1), Ordering::Relaxed);
        (fewer > 0).then_some(fewer)
    }

    /// A job went well with `tried` at a time: the next one may try one more. Other programs come and go, and images have
    /// different sizes.
    pub fn grow(&self, tried: usize) {
        self.most.fetch_max(tried.saturating_add(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_memory_halves_and_good_jobs_give_back() {
        let room = Room::default();
        assert_eq!(room.of(4), 4);
        assert_eq!((room.shrink(4), room.of(4)), (Some(2), 2));
        assert_eq!((room.shrink(2), room.shrink(1), room.of(4)), (Some(1), None, 1));
        room.grow(1);
        assert_eq!((room.of(4), room.of(1)), (2, 1));
        room.grow(2);
        assert_eq!(room.of(4), 3);
    }
}
