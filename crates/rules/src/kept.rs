//! Values that are made while an event is asked, and live as long as it.
//!
//! A list of cells: what was kept never moves, so it can be borrowed while more is kept.

use std::cell::OnceCell;

/// Keeps values for as long as it lives.
#[derive(Debug)]
pub struct Kept<T>(OnceCell<Box<Link<T>>>);

#[derive(Debug)]
struct Link<T> {
    value: T,
    next: Kept<T>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(OnceCell::new())
    }
}

impl<T> Kept<T> {
    /// Keeps a value.
    pub fn keep(&self, value: T) -> &T {
        let mut place = self;
        while let Some(link) = place.0.get() {
            place = &link.next;
        }
        let link = place.0.get_or_init(|| {
            Box::new(Link {
                value,
                next: Self::default(),
            })
        });
        &link.value
    }
}

impl<T> Drop for Kept<T> {
    /// One after another: a long chain must not be dropped by recursion.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut link) = next {
            next = link.next.0.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_where_it_is_and_many_are_dropped() {
        let kept = Kept::default();
        let first = kept.keep("first".to_owned());
        let second = kept.keep("second".to_owned());
        assert_eq!((first.as_str(), second.as_str()), ("first", "second"));
        // built from its end: keeping walks
        let mut chain: Kept<u32> = Kept::default();
        for value in 0..200_000 {
            let link = Link { value, next: chain };
            chain = Kept(OnceCell::from(Box::new(link)));
        }
        drop(chain);
    }
}
