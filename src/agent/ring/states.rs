//! Every order in which a few things can happen to a small ring.

use std::collections::BTreeMap;

use super::{
    routing::consistent,
    tests::{TTL, deferred, key, mac, seconds, started, wake},
    *,
};

#[path = "../../../tests/common/explore.rs"]
#[allow(unreachable_pub, reason = "a part of what other tests share")]
mod explore;

use explore::{World as _, explore};

const NAMES: [&str; 2] = ["a", "b"];
const TARGETS: usize = 2;

/// What a replica answers.
#[derive(Debug, Clone, Copy)]
enum Says {
    Started,
    NotFound,
    Later,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Hear(usize),
    Come(usize),
    Leave(usize),
    Lose(usize),
    Send(usize),
    Answer(usize, u64, Says),
    /// Time passes, and the ring is not told yet.
    Pass(u64),
    Tick,
}

/// How a wake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Answered,
    Stale,
    Overflow,
}

/// What is to be true of a wake.
#[derive(Debug, Clone)]
struct Heard {
    target: usize,
    at: Instant,
    fate: Fate,
    /// A manager asked to have it kept until then.
    kept_until: Option<Instant>,
    /// The replicas whose sessions were sent it, and when, unless a deferral has answered that.
    sent: BTreeMap<usize, Option<Instant>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Session {
    None,
    Open,
    Leaving,
}

#[derive(Debug, Clone)]
struct World {
    ring: Ring,
    now: Instant,
    sessions: [Session; NAMES.len()],
    heard: BTreeMap<u64, Heard>,
    most: usize,
    /// Wakes that were not taken in.
    refused: usize,
}

impl World {
    fn new(capacity: usize, most: usize) -> Self {
        let mut ring = Ring::new(TTL);
        ring.capacity = capacity;
        Self {
            ring,
            now: Instant::now(),
            sessions: [Session::None; NAMES.len()],
            heard: BTreeMap::new(),
            most,
            refused: 0,
        }
    }

    fn with_both(mut self) -> Self {
        self.take(Step::Come(0));
        self.take(Step::Come(1));
        self
    }

    fn hear(&mut self, target: usize) {
        let (known, seq) = (self.ring.knows(mac(target)), self.ring.next_seq);
        let full = self.ring.len() == self.ring.capacity;
        let victims = |ring: &Ring, known| {
            let mut all = ring.entries.values();
            all.find(|entry| entry.known == known)
                .map(|entry| entry.seq)
        };
        let victim = victims(&self.ring, false).or(victims(&self.ring, true).filter(|_| known));
        let dropped = self
            .ring
            .push(wake(target, Carrier::Udp), key(target), known, self.now);
        assert_eq!(
            dropped.is_some(),
            full,
            "only a full ring lets go of a wake"
        );
        assert!(
            dropped.iter().all(|dropped| dropped.retry),
            "it counts anew"
        );
        if full && victim.is_none() {
            assert_eq!(dropped.map(|dropped| dropped.key), Some(key(target)));
            assert_eq!(self.ring.next_seq, seq, "it was not taken in");
            self.refused += 1;
            return;
        }
        if let Some(old) = victim.filter(|_| full) {
            let heard = self.heard.get_mut(&old).unwrap();
            assert_eq!(dropped.map(|dropped| dropped.key), Some(key(heard.target)));
            heard.fate = Fate::Overflow;
        }
        let heard = Heard {
            target,
            at: self.now,
            fate: Fate::Open,
            kept_until: None,
            sent: BTreeMap::new(),
        };
        assert!(
            self.heard.insert(seq, heard).is_none(),
            "a number of its own"
        );
    }

    /// The wake that the replica ought to be sent next.
    fn first_of(&self, replica: usize) -> Option<u64> {
        let place = Place::Queued(NAMES[replica].into());
        let queued = self.ring.entries.values().filter(|one| one.place == place);
        let fresh = queued.filter(|one| self.heard[&one.seq].is_fresh(self.now));
        fresh.map(Entry::turn).min().map(|(_, seq)| seq)
    }

    fn send(&mut self, replica: usize) {
        let first = self.first_of(replica);
        assert_eq!(self.ring.has_due(NAMES[replica], self.now), first.is_some());
        let Some(due) = self.ring.next_unsent(NAMES[replica], self.now) else {
            return;
        };
        assert_eq!(self.sessions[replica], Session::Open);
        assert_eq!(Some(due.seq), first, "what is known first, then the oldest");
        let heard = self.heard.get_mut(&due.seq).unwrap();
        assert_eq!(heard.fate, Fate::Open, "nothing is sent that has ended");
        assert!(heard.is_fresh(self.now), "nothing is sent that is stale");
        assert_eq!(due.age, self.now - heard.at);
        assert_eq!(due.deferred, heard.kept_until.is_some());
        let before = heard.sent.insert(replica, Some(self.now)).flatten();
        let soon = |at| self.now < at + ACK_TIMEOUT;
        assert!(
            !before.is_some_and(soon),
            "not twice before it could answer"
        );
    }

    fn answer(&mut self, replica: usize, seq: u64, says: Says) {
        let answer = match says {
            Says::Started => started(),
            Says::NotFound => Answer::Final(crate::wake::Outcome::NotFound, String::new()),
            Says::Later => deferred(seconds(3)),
        };
        let before = format!("{:?}", self.ring);
        let settled = self
            .ring
            .acked(&NAMES[replica].into(), seq, &answer, self.now);
        let Some(heard) = self
            .heard
            .get_mut(&seq)
            .filter(|one| one.fate == Fate::Open)
        else {
            assert_eq!(settled, None);
            assert_eq!(format!("{:?}", self.ring), before, "it means nothing");
            return;
        };
        if let Says::Later = says {
            assert_eq!(settled, None);
            heard.kept_until = heard.kept_until.max(Some(self.now + seconds(3)));
            heard.sent.insert(replica, None);
        } else {
            let retry = matches!(says, Says::NotFound);
            let key = key(heard.target);
            assert_eq!(settled, Some(Settled { key, retry }));
            heard.fate = Fate::Answered;
        }
    }

    fn tick(&mut self) {
        for entry in self.ring.entries.values() {
            if matches!(&entry.place, Place::Deferred(_, until) if *until <= self.now) {
                let heard = self.heard.get_mut(&entry.seq).unwrap();
                heard.kept_until = heard.kept_until.max(Some(self.now + ACK_TIMEOUT));
            }
        }
        let before: Vec<u64> = self.ring.entries.keys().copied().collect();
        let stale = self.ring.tick(self.now);
        let left = before
            .iter()
            .filter(|seq| !self.ring.entries.contains_key(seq));
        let left: Vec<u64> = left.copied().collect();
        let keys: Vec<Key> = left.iter().map(|seq| key(self.heard[seq].target)).collect();
        let told: Vec<Key> = stale.iter().map(|settled| settled.key).collect();
        assert_eq!(told, keys, "each that leaves is told");
        for seq in left {
            let heard = self.heard.get_mut(&seq).unwrap();
            assert!(!heard.is_fresh(self.now), "what leaves by itself is stale");
            heard.fate = Fate::Stale;
        }
        let open = self.ring.entries.values();
        for entry in open.filter(|entry| entry.place.is_waiting()) {
            assert!(
                self.heard[&entry.seq].is_fresh(self.now),
                "no stale one waits"
            );
        }
    }

    fn come(&mut self, replica: usize) {
        self.ring.replica_came(NAMES[replica].into());
        self.sessions[replica] = Session::Open;
    }

    fn lose(&mut self, replica: usize) {
        self.ring.replica_lost(NAMES[replica]);
        self.sessions[replica] = Session::None;
        for heard in self.heard.values_mut() {
            heard.sent.remove(&replica);
        }
    }

    fn check(&self) {
        consistent(&self.ring);
        let open = self.heard.iter().filter(|(_, one)| one.fate == Fate::Open);
        assert!(
            open.map(|(seq, _)| seq).eq(self.ring.entries.keys()),
            "each wake is in the ring, or it was told how it ended"
        );
        assert!(self.ring.len() <= self.ring.capacity);
        for (replica, session) in self.sessions.iter().enumerate() {
            let routed = self.ring.routes.contains(NAMES[replica]);
            assert_eq!(routed, *session == Session::Open);
        }
        for entry in self.ring.entries.values() {
            if let Place::Sent(replica, _) = &entry.place {
                assert!(entry.asked.contains(replica), "an answer is waited for");
            }
        }
    }
}

impl Heard {
    /// Whether it may still start something.
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.at + TTL || self.kept_until.is_some_and(|until| now < until)
    }
}

impl explore::World for World {
    type Step = Step;

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Tick, Step::Pass(2), Step::Pass(30)];
        if self.heard.len() + self.refused < self.most {
            steps.extend((0..TARGETS).map(Step::Hear));
        }
        for (replica, session) in self.sessions.iter().enumerate() {
            match session {
                Session::None => {
                    steps.push(Step::Come(replica));
                    continue;
                }
                Session::Open => steps.extend([Step::Leave(replica), Step::Send(replica)]),
                Session::Leaving => {}
            }
            steps.push(Step::Lose(replica));
            for (seq, heard) in &self.heard {
                if heard.sent.contains_key(&replica) {
                    let says = [Says::Started, Says::NotFound, Says::Later];
                    steps.extend(says.map(|says| Step::Answer(replica, *seq, says)));
                }
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hear(target) => self.hear(target),
            Step::Come(replica) => self.come(replica),
            Step::Leave(replica) => {
                self.ring.replica_leaves(NAMES[replica]);
                self.sessions[replica] = Session::Leaving;
            }
            Step::Lose(replica) => self.lose(replica),
            Step::Send(replica) => self.send(replica),
            Step::Answer(replica, seq, says) => self.answer(replica, seq, says),
            Step::Pass(time) => self.now += seconds(time),
            Step::Tick => self.tick(),
        }
        self.check();
    }

    /// One replica that answers is enough for everything that is not stale.
    fn end(mut self) {
        self.take(Step::Answer(0, 99, Says::Started));
        self.lose(0);
        self.lose(1);
        self.come(0);
        self.tick();
        while let Some(seq) = self.first_of(0) {
            self.take(Step::Send(0));
            self.take(Step::Answer(0, seq, Says::Started));
        }
        assert!(self.ring.is_empty(), "{:?}", self.ring);
    }
}

fn report(what: &str, explored: explore::Explored) {
    let explore::Explored { states, steps } = explored;
    eprintln!("{what}: {states} states by {steps} steps");
    assert!(states > 3_000, "the search went nowhere: {states} states");
}

#[test]
fn in_every_order_of_what_happens_to_two_replicas_no_wake_is_lost_stale_or_sent_after_its_end() {
    report(
        "from two replicas",
        explore(World::new(8, 3).with_both(), 6),
    );
    report("from none", explore(World::new(8, 2), 6));
}

#[test]
fn in_every_order_a_full_ring_lets_go_of_one_wake_for_each_that_comes_and_tells_which() {
    report("full", explore(World::new(1, 3).with_both(), 5));
}
