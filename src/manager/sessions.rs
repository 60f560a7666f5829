//! Owns [`Sessions`]: which agents are connected, and whether each has put the newest
//! configuration into force.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{metrics::Metrics, readers::Readers};

/// Sessions at most, those that have not said hello yet included: twice the nodes of the largest
/// cluster, as the old and the new agent of a node overlap.
const MAX_SESSIONS: u32 = 16_384;

/// Sessions of one node at most, so that one that was taken over leaves room for the others: the old and
/// the new agent, each by two addresses, and as many that are not noticed to have broken.
const MAX_OF_NODE: usize = 8;

/// Names an agent process: the old and the new agent of a node are two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentId {
    /// The node that it runs on.
    pub node: Arc<str>,
    /// Chosen by the process when it started.
    pub boot_id: u64,
}

/// What is known of a connected agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its version, for people.
    pub version: String,
    /// The newest configuration that is in force there.
    pub configured: Option<u64>,
    /// The newest configuration that it answered to, whether or not it took it.
    pub answered: Option<u64>,
    /// What it could not do of what was asked.
    pub trouble: Option<Trouble>,
    ticket: u64,
}

/// What an agent could not do of what was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Its own words; empty where the listeners say all.
    pub message: String,
    /// The listeners that failed, by name (`udp/9`, `raw`), and why.
    pub listeners: BTreeMap<String, String>,
}

impl Trouble {
    /// Whether anything is wrong.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.message.is_empty() || !self.listeners.is_empty()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (position, (name, error)) in self.listeners.iter().enumerate() {
            let between = if position == 0 && self.message.is_empty() {
                ""
            } else {
                "; "
            };
            write!(f, "{between}{name}: {error}")?;
        }
        Ok(())
    }
}

/// The sessions of this manager.
#[derive(Debug)]
pub struct Sessions {
    places: Arc<Semaphore>,
    roll: Mutex<Roll>,
    /// Whether their agents read.
    readers: Arc<Readers>,
    /// Told of each change.
    changed: watch::Sender<()>,
    metrics: Metrics,
}

/// Who has taken all places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// All agents together.
    Manager,
    /// Those of the node.
    Node,
}

/// A place for a session; dropping it leaves it to another.
#[derive(Debug)]
pub struct Place {
    node: Option<(Arc<Sessions>, Arc<str>)>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((sessions, node)) = &self.node else {
            return;
        };
        let mut roll = sessions.roll();
        if let Some(taken) = roll.nodes.get_mut(node) {
            *taken -= 1;
            if *taken == 0 {
                roll.nodes.remove(node);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Roll {
    /// The sessions of each process, the newest last: an agent may try a second address before it
    /// learns that the same manager is behind it.
    agents: HashMap<AgentId, Vec<Agent>>,
    /// Places taken by the agents of each node.
    nodes: HashMap<Arc<str>, usize>,
    newest: u64,
    /// Agents with the newest configuration, kept by each change: to count them anew whenever one of
    /// thousands comes would take longer than the rest of its coming.
    configured: usize,
    tickets: u64,
}

impl Roll {
    /// Changes the sessions of a process, of which there may be none before or after.
    fn change(&mut self, id: &AgentId, change: impl FnOnce(&mut Vec<Agent>)) {
        let newest = self.newest;
        let all = self.agents.entry(id.clone()).or_default();
        let before = is_configured(all, newest);
        change(all);
        let after = is_configured(all, newest);
        if all.is_empty() {
            self.agents.remove(id);
        }
        self.configured = self.configured + usize::from(after) - usize::from(before);
    }

    /// Takes note of a newer configuration.
    fn renew(&mut self, generation: u64) {
        self.newest = generation;
        let agents = self.agents.values();
        self.configured = agents.filter(|all| is_configured(all, generation)).count();
    }
}

/// Whether a process has a configuration in force; its newest session tells.
fn is_configured(all: &[Agent], generation: u64) -> bool {
    all.last()
        .is_some_and(|agent| agent.configured == Some(generation))
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(MAX_SESSIONS as usize)),
            roll: Mutex::default(),
            readers: Arc::default(),
            changed: watch::Sender::default(),
            metrics,
        })
    }

    /// Takes a place for one more session, of an agent of this node if that is proven.
    ///
    /// # Errors
    ///
    /// All are taken.
    pub fn place(self: &Arc<Self>, node: Option<&Arc<str>>) -> Result<Place, Crowded> {
        let place = self.places.clone().try_acquire_owned();
        let permit = place.map_err(|_| Crowded::Manager)?;
        if let Some(node) = node {
            let mut roll = self.roll();
            let taken = roll.nodes.entry(node.clone()).or_default();
            if *taken >= MAX_OF_NODE {
                return Err(Crowded::Node);
            }
            *taken += 1;
        }
        Ok(Place {
            node: node.map(|node| (self.clone(), node.clone())),
            _permit: permit,
        })
    }

    /// Whether their agents read.
    #[must_use]
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Waits until every session is over.
    pub async fn drained(&self) {
        // Fails only for a closed semaphore, and nobody closes it.
        let _ = self.places.acquire_many(MAX_SESSIONS).await;
    }

    /// The agents that are connected now.
    #[must_use]
    pub fn agents(&self) -> Vec<(AgentId, Agent)> {
        let roll = self.roll();
        let agents = roll.agents.iter();
        let newest = agents.filter_map(|(id, all)| Some((id.clone(), all.last()?.clone())));
        newest.collect()
    }

    /// Is told of each change of [`agents`](Self::agents) and [`newest`](Self::newest).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The generation of the newest configuration that was sent to any agent.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.roll().newest
    }

    /// Takes an agent in until the membership is dropped. Of several sessions of the same process the
    /// newest counts.
    #[must_use]
    pub fn join(self: &Arc<Self>, id: AgentId, version: String) -> Membership {
        let mut roll = self.roll();
        roll.tickets += 1;
        let agent = Agent {
            version,
            configured: None,
            answered: None,
            trouble: None,
            ticket: roll.tickets,
        };
        let membership = Membership {
            sessions: self.clone(),
            ticket: agent.ticket,
            id,
        };
        roll.change(&membership.id, |all| all.push(agent));
        self.tell(&roll);
        membership
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, roll: &Roll) {
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.configured.set(gauge(roll.configured));
        self.metrics.connected.set(gauge(roll.agents.len()));
        self.changed.send_replace(());
    }
}

/// An agent's place among the sessions; dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    sessions: Arc<Sessions>,
    id: AgentId,
    ticket: u64,
}

impl Membership {
    /// The node of this agent.
    #[must_use]
    pub fn node(&self) -> &Arc<str> {
        &self.id.node
    }

    /// Notes that a configuration was sent.
    pub fn sent(&self, generation: u64) {
        let mut roll = self.sessions.roll();
        if generation > roll.newest {
            roll.renew(generation);
            self.sessions.tell(&roll);
        }
    }

    /// Notes the answer to a configuration: whether it is in force, and what could not be done.
    pub fn answered(&self, generation: u64, accepted: bool, trouble: Option<Trouble>) {
        let mut roll = self.sessions.roll();
        roll.change(&self.id, |all| {
            let own = all.iter_mut().find(|agent| agent.ticket == self.ticket);
            if let Some(agent) = own {
                agent.answered = Some(generation);
                agent.configured = Some(generation).filter(|_| accepted).or(agent.configured);
                agent.trouble = trouble;
            }
        });
        self.sessions.tell(&roll);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut roll = self.sessions.roll();
        roll.change(&self.id, |all| {
            all.retain(|agent| agent.ticket != self.ticket);
        });
        self.sessions.tell(&roll);
    }
}

/// The characters of a Kubernetes node's name, of which there are 253 at most.
#[must_use]
pub fn is_node_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    /// What the gauges say: the agents connected, and those with the newest configuration.
    fn told(sessions: &Sessions) -> (i64, i64) {
        let metrics = &sessions.metrics;
        (metrics.connected.get(), metrics.configured.get())
    }

    /// The same, counted anew.
    fn counted(sessions: &Sessions) -> (i64, i64) {
        let (agents, newest) = (sessions.agents(), sessions.newest());
        let configured = agents
            .iter()
            .filter(|(_, it)| it.configured == Some(newest));
        let gauge = |number: usize| i64::try_from(number).unwrap();
        (gauge(agents.len()), gauge(configured.count()))
    }

    #[test]
    fn whatever_agents_do_those_with_the_newest_configuration_are_counted() {
        let mut seen = [0; 3];
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let sessions = Sessions::new(Metrics::new(&mut Registry::default()));
            let mut members = Vec::<Membership>::new();
            for _ in 0..100 {
                let index = random.usize(..members.len().max(1));
                let generation = random.u64(1..5);
                match (random.u8(..5), members.get(index)) {
                    (0, Some(_)) => drop(members.swap_remove(index)),
                    (1, Some(member)) => member.sent(generation),
                    (2 | 3, Some(member)) => member.answered(generation, random.bool(), None),
                    _ => {
                        let id = AgentId {
                            node: ["a", "b", "c", "d"][random.usize(..4)].into(),
                            boot_id: random.u64(..2),
                        };
                        members.push(sessions.join(id, String::new()));
                    }
                }
                let counts = told(&sessions);
                assert_eq!(counts, counted(&sessions), "seed {seed}");
                seen[usize::try_from(counts.1.min(2)).unwrap()] += 1;
            }
            members.clear();
            assert_eq!(told(&sessions), (0, 0), "seed {seed}");
        }
        assert!(seen.iter().all(|times| *times > 100), "{seen:?}");
    }
}
