//! The queue against what it promises, and against a naive one.

use proptest::prelude::*;

use super::*;

const CLIENTS: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];

fn queue(max_pending: usize, max_memory: u64) -> WaitQueue {
    WaitQueue::new(&Queue { max_pending, max_memory, ..Queue::default() })
}

fn class(name: &str, weight: u32) -> Arc<Class> {
    Arc::new(Class { name: name.to_owned(), weight })
}

fn caller(class: &Arc<Class>, route: u32, client: usize) -> Caller {
    let client = CLIENTS[client].parse::<std::net::IpAddr>().unwrap().into();
    Caller { class: class.clone(), route, client, bytes: 0 }
}

/// Waiters are told apart by when they began to wait.
struct Harness {
    queue: WaitQueue,
    start: Instant,
    next: u64,
}

impl Harness {
    fn new(queue: WaitQueue) -> Self {
        Self { queue, start: Instant::now(), next: 0 }
    }

    fn waiter(&mut self) -> (u64, Waiter) {
        let number = self.next;
        self.next += 1;
        let since = self.start + std::time::Duration::from_nanos(number);
        (number, Waiter { reply: oneshot::channel().0, since })
    }

    fn number(&self, waiter: &Waiter) -> u64 {
        u64::try_from((waiter.since - self.start).as_nanos()).unwrap()
    }

    /// Its number and its ticket, if it got one, and who was displaced.
    fn push(&mut self, caller: &Caller) -> (u64, Result<Ticket, NoPlace>, Vec<u64>) {
        let (number, waiter) = self.waiter();
        let mut displaced = Vec::new();
        let ticket = self.queue.push(caller, waiter, &mut displaced);
        (number, ticket, displaced.iter().map(|waiter| self.number(waiter)).collect())
    }

    fn must(&mut self, caller: &Caller) -> u64 {
        let (number, ticket, displaced) = self.push(caller);
        assert!(ticket.is_ok() && displaced.is_empty());
        number
    }

    fn pop(&mut self) -> Option<u64> {
        let waiter = self.queue.pop()?;
        Some(self.number(&waiter))
    }
}

#[test]
fn one_client_is_served_in_its_order_and_leaves_at_any_place() {
    let class = class("a", 1);
    let mut harness = Harness::new(queue(4, 1 << 20));
    let tickets: Vec<_> = (0..4).map(|_| harness.push(&caller(&class, 0, 0)).1.unwrap()).collect();
    assert_eq!(harness.push(&caller(&class, 0, 0)).1.unwrap_err(), NoPlace::Full);
    harness.queue.leave(&tickets[1]);
    harness.queue.leave(&tickets[1]);
    assert_eq!(harness.queue.len(), 3);
    assert_eq!(
        [harness.pop(), harness.pop(), harness.pop(), harness.pop()],
        [Some(0), Some(2), Some(3), None]
    );
    harness.queue.leave(&tickets[2]);
    harness.queue.close();
    assert_eq!(harness.push(&caller(&class, 0, 0)).1.unwrap_err(), NoPlace::Closed);
}

#[test]
fn clients_of_a_route_and_routes_of_a_class_take_turns_and_classes_by_weight() {
    let (heavy, light) = (class("heavy", 3), class("light", 1));
    let mut harness = Harness::new(queue(1000, 1 << 20));
    let flood: Vec<_> = (0..100).map(|_| harness.must(&caller(&heavy, 0, 0))).collect();
    let other: Vec<_> = (0..100).map(|_| harness.must(&caller(&heavy, 0, 1))).collect();
    let route: Vec<_> = (0..100).map(|_| harness.must(&caller(&heavy, 7, 0))).collect();
    let cheap: Vec<_> = (0..100).map(|_| harness.must(&caller(&light, 0, 0))).collect();
    let served: Vec<_> = (0..64).map(|_| harness.pop().unwrap()).collect();
    let count = |of: &[u64]| served.iter().filter(|number| of.contains(number)).count();
    assert_eq!([count(&flood), count(&other), count(&route), count(&cheap)], [12, 12, 24, 16]);
    assert!(served.iter().filter(|number| flood.contains(number)).is_sorted());
}

#[test]
fn heavy_classes_of_the_same_weight_take_turns_one_by_one() {
    let classes = [class("a", 1000), class("b", 1000), class("c", 500)];
    let mut harness = Harness::new(queue(1000, 1 << 20));
    let of = classes.each_ref().map(|class| [(); 30].map(|()| harness.must(&caller(class, 0, 0))));
    let served = (0..10).map(|_| harness.pop().unwrap());
    let turns: Vec<_> = served.map(|number| of.iter().position(|of| of.contains(&number)).unwrap()).collect();
    assert_eq!(turns, [0, 1, 0, 1, 2, 0, 1, 0, 1, 2]);
}

#[test]
fn the_newest_weight_of_a_class_counts() {
    let mut harness = Harness::new(queue(1000, 1 << 20));
    let other = class("b", 1);
    let of_other = [(); 30].map(|()| harness.must(&caller(&other, 0, 0)));
    for weight in [1, 4] {
        let class = class("a", weight);
        (0..30).for_each(|_| drop(harness.push(&caller(&class, 0, 0))));
    }
    let served = (0..20).filter(|_| of_other.contains(&harness.pop().unwrap()));
    assert_eq!(served.count(), 4);
}

#[test]
fn who_comes_late_to_a_full_queue_displaces_the_newest_of_the_heaviest_and_not_more() {
    let class = class("a", 1);
    let mut harness = Harness::new(queue(6, 1 << 20));
    let flood: Vec<_> = (0..6).map(|_| harness.must(&caller(&class, 0, 0))).collect();
    for (nth, victim) in flood.iter().rev().take(3).enumerate() {
        let (_, ticket, displaced) = harness.push(&caller(&class, 0, 1));
        assert!(ticket.is_ok());
        assert_eq!(displaced, [*victim], "{nth}");
    }
    for client in [0, 1] {
        assert_eq!(
            harness.push(&caller(&class, 0, client)).1.unwrap_err(),
            NoPlace::Full,
            "both have a half"
        );
    }
    assert_eq!(harness.push(&caller(&class, 9, 2)).2.len(), 1, "another route has a half too");
}

#[test]
fn bytes_are_bounded_as_entries_are() {
    let class = class("a", 1);
    let mut harness = Harness::new(queue(100, 1000));
    let of = |client, bytes| Caller { bytes, ..caller(&class, 0, client) };
    assert_eq!(harness.push(&of(0, 1001)).1.unwrap_err(), NoPlace::Full);
    assert_eq!([(); 4].map(|()| harness.must(&of(0, 250))), [1, 2, 3, 4]);
    assert_eq!(harness.push(&of(0, 0)).1.unwrap_err(), NoPlace::Full);
    let (_, ticket, displaced) = harness.push(&of(1, 300));
    assert_eq!((ticket.is_ok(), displaced), (true, vec![4, 3]));
    assert_eq!(harness.queue.len(), 3);
    let waiting = std::iter::from_fn(|| harness.pop()).collect::<Vec<_>>();
    assert_eq!(waiting, [1, 6, 2]);
    assert_eq!((harness.queue.len(), harness.queue.classes.load()), (0, 0));
}

/// The same rules in the simplest way: members in the order of their turns, with members of their own or with numbers.
#[derive(Default)]
struct Naive {
    members: Vec<(u64, u32, u32, Naive)>,
    numbers: Vec<u64>,
}

impl Naive {
    fn push(&mut self, path: &[(u64, u32)], number: u64) {
        let Some(((name, weight), rest)) = path.split_first() else { return self.numbers.push(number) };
        let at = self.members.iter().position(|(other, ..)| other == name).unwrap_or_else(|| {
            self.members.push((*name, *weight, 0, Self::default()));
            self.members.len() - 1
        });
        self.members[at].3.push(rest, number);
    }

    fn pop(&mut self) -> Option<u64> {
        while let Some(price) = self.members.iter().map(|(_, weight, ..)| *weight).max() {
            let (name, weight, saved, mut member) = self.members.remove(0);
            let saved = saved.min(price - 1) + weight;
            let number = if saved < price { None } else { member.pop() };
            if !member.is_empty() {
                self.members.push((name, weight, saved % price, member));
            }
            if number.is_some() {
                return number;
            }
        }
        (!self.numbers.is_empty()).then(|| self.numbers.remove(0))
    }

    fn leave(&mut self, number: u64) {
        self.numbers.retain(|other| *other != number);
        self.members.iter_mut().for_each(|(.., member)| member.leave(number));
        self.members.retain(|(.., member)| !member.is_empty());
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.numbers.is_empty()
    }
}

/// What is done to both.
#[derive(Clone, Debug)]
enum Step {
    Push { class: usize, route: u32, client: usize },
    Pop,
    Leave(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let push = (0..2usize, 0..2u32, 0..3usize).prop_map(|(class, route, client)| Step::Push {
        class,
        route,
        client,
    });
    let step = prop_oneof![3 => push, 2 => Just(Step::Pop), 1 => (0..40usize).prop_map(Step::Leave)];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Against a list of who waits: nobody is lost or served twice, each client's order is kept, the bound holds, and
    /// only the newest of a client that has more than the newcomer is displaced.
    #[test]
    fn it_is_a_queue(steps in steps(), max in 1..12usize) {
        let classes = [class("a", 3), class("b", 1)];
        let mut harness = Harness::new(queue(max, 1 << 20));
        let mut waiting: Vec<(u64, Caller, Ticket)> = Vec::new();
        for step in steps {
            match step {
                Step::Push { class, route, client } => {
                    let caller = caller(&classes[class], route, client);
                    let was_full = waiting.len() == max;
                    let (number, ticket, displaced) = harness.push(&caller);
                    prop_assert!(displaced.len() <= usize::from(was_full && ticket.is_ok()));
                    prop_assert!(ticket.is_ok() || was_full);
                    for victim in displaced {
                        let at = waiting.iter().position(|(number, ..)| *number == victim).unwrap();
                        let (_, of, _) = waiting.remove(at);
                        prop_assert!(!waiting[at..].iter().any(|(_, other, _)| *other == of), "the newest one");
                        prop_assert!(of != caller);
                    }
                    waiting.extend(ticket.ok().map(|ticket| (number, caller, ticket)));
                }
                Step::Pop => {
                    let popped = harness.pop();
                    prop_assert_eq!(popped.is_none(), waiting.is_empty());
                    if let Some(popped) = popped {
                        let at = waiting.iter().position(|(number, ..)| *number == popped).unwrap();
                        let (_, of, _) = waiting.remove(at);
                        prop_assert!(!waiting[..at].iter().any(|(_, other, _)| *other == of), "the oldest one");
                    }
                }
                Step::Leave(nth) => if nth < waiting.len() {
                    harness.queue.leave(&waiting.remove(nth).2);
                },
            }
            prop_assert_eq!(harness.queue.len(), waiting.len());
            prop_assert!(waiting.len() <= max);
        }
        let rest = std::iter::from_fn(|| harness.pop()).count();
        prop_assert_eq!(rest, waiting.len());
        prop_assert_eq!(harness.queue.classes.load(), 0);
    }

    /// Against the simplest queue of the same rules: the same ones in the same order.
    #[test]
    fn it_does_as_a_naive_one(steps in steps(), weights in (1..6u32, 1..6u32)) {
        let classes = [class("a", weights.0), class("b", weights.1)];
        let (mut harness, mut naive) = (Harness::new(queue(1000, 1 << 20)), Naive::default());
        let mut tickets = Vec::new();
        for step in steps {
            match step {
                Step::Push { class, route, client } => {
                    let (number, ticket, _) = harness.push(&caller(&classes[class], route, client));
                    let path = [(class as u64, classes[class].weight), (route.into(), 1), (client as u64, 1)];
                    naive.push(&path, number);
                    tickets.push((number, ticket.unwrap()));
                }
                Step::Pop => prop_assert_eq!(harness.pop(), naive.pop()),
                Step::Leave(nth) => if let Some((number, ticket)) = tickets.get(nth) {
                    harness.queue.leave(ticket);
                    naive.leave(*number);
                },
            }
        }
        while !naive.is_empty() {
            prop_assert_eq!(harness.pop(), naive.pop());
        }
        prop_assert_eq!(harness.queue.len(), 0);
    }

    /// Of two clients that always wait, neither is ever ahead by more than one; of two classes by more than a quantum each.
    #[test]
    fn those_who_always_wait_are_served_by_their_shares(weights in (1..9u32, 1..9u32), depth in 20..60usize) {
        let classes = [class("a", weights.0), class("b", weights.1)];
        let mut harness = Harness::new(queue(1000, 1 << 20));
        let mut of = BTreeMap::new();
        for (number, class) in classes.iter().enumerate() {
            for client in 0..2 {
                for _ in 0..depth {
                    of.insert(harness.must(&caller(class, 0, client)), (number, client));
                }
            }
        }
        let mut served = [[0i64; 2]; 2];
        while served.iter().flatten().all(|count| *count < depth as i64) {
            let (class, client) = of[&harness.pop().unwrap()];
            served[class][client] += 1;
            prop_assert!(served.iter().all(|clients| (clients[0] - clients[1]).abs() <= 1));
            let [a, b] = served.map(|clients| clients.iter().sum::<i64>());
            let (wa, wb) = (i64::from(weights.0), i64::from(weights.1));
            let bound = (wa * wb).min(wa + wb);
            prop_assert!((a * wb - b * wa).abs() <= bound, "{a} of weight {wa}, {b} of weight {wb}");
        }
    }
}
