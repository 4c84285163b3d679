//! The readers of one topic, each in a seat.

use crate::arena::{ConnId, SubscriptionId};

/// One that reads a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    pub id: SubscriptionId,
    /// Its connection, where messages that ask for nothing special go to it as they are: the
    /// subscription is confirmed and has no extra fields. A fan-out need not look at it then.
    pub direct: Option<ConnId>,
}

/// The place of a reader, so that leaving needs no search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat(u32);

/// All readers of a topic. Topics are many, and mostly have one: it is here, and no list has to be
/// fetched for its messages.
pub enum Seats {
    One(Reader),
    Several(Vec<Reader>),
}

impl Default for Seats {
    fn default() -> Self {
        Seats::Several(Vec::new())
    }
}

impl Seat {
    /// The index in `Seats::readers`.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Seats {
    pub fn readers(&self) -> &[Reader] {
        match self {
            Seats::One(reader) => std::slice::from_ref(reader),
            Seats::Several(readers) => readers,
        }
    }

    /// Takes up one more, who is not confirmed yet.
    pub fn sit_down(&mut self, id: SubscriptionId) -> Seat {
        let reader = Reader { id, direct: None };
        match self {
            Seats::One(first) => *self = Seats::Several(vec![*first, reader]),
            Seats::Several(readers) if readers.capacity() == 0 => *self = Seats::One(reader),
            Seats::Several(readers) => readers.push(reader),
        }
        Seat((self.readers().len() - 1) as u32)
    }

    /// Messages may go straight to the reader's connection from now on.
    pub fn set_direct(&mut self, seat: Seat, conn: ConnId) {
        let reader = match self {
            Seats::One(reader) if seat.index() == 0 => Some(reader),
            Seats::One(_) => None,
            Seats::Several(readers) => readers.get_mut(seat.index()),
        };
        if let Some(reader) = reader {
            reader.direct = Some(conn);
        }
    }

    /// Lets a reader go. Gives the one that took over its seat, if any.
    pub fn leave(&mut self, seat: Seat, id: SubscriptionId) -> Option<SubscriptionId> {
        assert_eq!(self.readers()[seat.index()].id, id, "a seat belongs to its reader");
        match self {
            Seats::Several(readers) if readers.len() > 1 => {
                readers.swap_remove(seat.index());
            }
            // A storm of readers leaves no room behind.
            _ => *self = Seats::default(),
        }
        self.readers().get(seat.index()).map(|moved| moved.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::{Arena, ConnTag, SubscriptionTag};

    #[test]
    fn the_last_reader_takes_over_the_seat_of_one_that_leaves() {
        let mut ids: Arena<SubscriptionTag, ()> = Arena::default();
        let conn = Arena::<ConnTag, ()>::default().insert(());
        let (a, b, c) = (ids.insert(()), ids.insert(()), ids.insert(()));
        let mut seats = Seats::default();
        let first = seats.sit_down(a);
        seats.set_direct(first, conn);
        assert_eq!(seats.readers(), [Reader { id: a, direct: Some(conn) }]);
        let second = seats.sit_down(b);
        seats.sit_down(c);
        seats.set_direct(second, conn);
        assert_eq!(seats.leave(first, a), Some(c));
        assert_eq!(seats.leave(second, b), None);
        assert_eq!(seats.readers(), [Reader { id: c, direct: None }]);
        assert_eq!(seats.leave(first, c), None);
        assert!(seats.readers().is_empty());
    }
}
