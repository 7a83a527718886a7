//! Who is connected. There are only so many places, and nobody can hold them against others: where all are taken, a new
//! connection takes the place of one of the address that has most, first of one that waits without having asked.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Most connections at a time.
pub const MAX_CONNECTIONS: usize = 64;

/// All connections that are open.
#[derive(Default)]
pub struct Connections(Mutex<Open>);

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, State>,
    opened: u64,
}

struct State {
    peer: IpAddr,
    /// Whether an answer is under way.
    answering: bool,
    /// When it came, asked, or last took some of its answer.
    since: Instant,
    end: Arc<Notify>,
}

impl Connections {
    /// A place for a new connection.
    pub fn open(self: &Arc<Self>, peer: IpAddr) -> Connection {
        let mut open = self.lock();
        if open.by_number.len() >= MAX_CONNECTIONS {
            open.make_room();
        }
        let (number, end) = (open.opened, Arc::new(Notify::new()));
        open.opened += 1;
        let state = State { peer, answering: false, since: Instant::now(), end: end.clone() };
        open.by_number.insert(number, state);
        Connection { number, end, all: self.clone() }
    }

    /// Each change is whole, whoever else ended while holding the lock.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn make_room(&mut self) {
        let mut held: HashMap<IpAddr, usize> = HashMap::new();
        for state in self.by_number.values() {
            *held.entry(state.peer).or_default() += 1;
        }
        let rank = |number: &u64, state: &State| {
            (held[&state.peer], !state.answering, Reverse((state.since, *number)))
        };
        let last = self.by_number.iter().max_by_key(|(number, state)| rank(number, state));
        let last = last.map(|(number, _)| *number);
        if let Some(state) = last.and_then(|number| self.by_number.remove(&number)) {
            state.end.notify_one();
        }
    }
}

/// One place; given back when it is dropped.
pub struct Connection {
    number: u64,
    end: Arc<Notify>,
    all: Arc<Connections>,
}

impl Connection {
    /// An answer begins, or has come further.
    pub fn answers(&self) {
        self.set(true);
    }

    /// The answer is given; the next request is waited for.
    pub fn waits(&self) {
        self.set(false);
    }

    fn set(&self, answering: bool) {
        if let Some(state) = self.all.lock().by_number.get_mut(&self.number) {
            (state.answering, state.since) = (answering, Instant::now());
        }
    }

    /// Whether an answer has come no further for so long.
    pub fn stalled(&self, limit: Duration) -> bool {
        let open = self.all.lock();
        open.by_number.get(&self.number).is_none_or(|s| s.answering && s.since.elapsed() >= limit)
    }

    /// Waits until the place is needed for another.
    pub async fn ended(&self) {
        self.end.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection was told to end.
    fn is_ended(connection: &Connection) -> bool {
        !connection.all.lock().by_number.contains_key(&connection.number)
    }

    #[test]
    fn the_one_that_waits_longest_makes_room_and_answers_go_on() {
        let all = Arc::new(Connections::default());
        let one = IpAddr::from([127, 0, 0, 1]);
        let held: Vec<Connection> = (0..MAX_CONNECTIONS).map(|_| all.open(one)).collect();
        held[0].answers();
        let next = all.open(one);
        assert!(!is_ended(&held[0]) && is_ended(&held[1]) && !is_ended(&next));
        // A place that is given back needs no other to go.
        drop(next);
        let _next = all.open(one);
        assert_eq!(held.iter().filter(|connection| is_ended(connection)).count(), 1);
    }

    #[test]
    fn an_address_with_many_gives_way_to_one_with_few() {
        let all = Arc::new(Connections::default());
        let (many, few) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let patient = all.open(few);
        let held: Vec<Connection> = (0..MAX_CONNECTIONS - 1).map(|_| all.open(many)).collect();
        held.iter().for_each(Connection::answers);
        let _next: Vec<Connection> = (0..10).map(|_| all.open(few)).collect();
        assert!(!is_ended(&patient));
        assert_eq!(held.iter().filter(|connection| is_ended(connection)).count(), 10);
    }

    #[test]
    fn only_an_answer_that_is_not_taken_stalls() {
        let all = Arc::new(Connections::default());
        let connection = all.open(IpAddr::from([127, 0, 0, 1]));
        assert!(!connection.stalled(Duration::ZERO));
        connection.answers();
        assert!(connection.stalled(Duration::ZERO) && !connection.stalled(Duration::from_secs(60)));
        connection.waits();
        assert!(!connection.stalled(Duration::ZERO));
    }
}
