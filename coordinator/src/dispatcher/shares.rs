//! Which request may publish next: the window of jobs in flight, shared between sites by weight.
//!
//! Each queue has a window: what is in flight there waits in the broker in the order in which it was dealt, and so workers
//! take it in that order. A free place goes to the site that has used the fewest worker-seconds for its weight, its jobs in
//! flight counted at what its jobs have taken lately (start-time fair queueing). A site that comes back from rest starts
//! level with the others: time that it did not use is not owed to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hiresmed_protocol::{Class, RequestId, SiteId, job::Kind};
use tokio::sync::Notify;

/// Weight of the newest job in the estimate of what a site's jobs take.
const NEWEST: f64 = 0.2;

/// Estimate of a job's worker-seconds before any has ended.
const UNKNOWN_SECONDS: f64 = 1.0;

/// What a queue is for: each kind and class has one.
pub(super) type Work = (Kind, Class);

/// The windows of all queues. Shared by the dispatchers of all requests.
#[derive(Debug)]
pub struct Shares {
    window: usize,
    state: Mutex<State>,
}

/// Jobs of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The site.
    pub site: SiteId,
    /// What kind of work.
    pub kind: Kind,
    /// Published and not settled.
    pub in_flight: usize,
    /// To be published when there is room.
    pub backlog: usize,
}

#[derive(Debug, Default)]
struct State {
    sites: BTreeMap<SiteId, Site>,
    entries: BTreeMap<RequestId, Entry>,
    /// Counts requests, for the order among those of one site.
    joined: u64,
}

#[derive(Debug)]
struct Site {
    weight: f64,
    /// Worker-seconds by weight, from wherever it started.
    used: f64,
    /// What a job of its takes, in worker-seconds.
    job_seconds: f64,
}

impl Site {
    /// What a job of its moves it on by.
    fn job_cost(&self) -> f64 {
        self.job_seconds / self.weight
    }
}

/// A request under way.
#[derive(Debug)]
struct Entry {
    site: SiteId,
    work: Work,
    order: u64,
    in_flight: usize,
    ready: usize,
    granted: usize,
    notify: Arc<Notify>,
}

impl Entry {
    fn wants(&self) -> bool {
        self.ready > self.granted
    }

    fn holds(&self) -> usize {
        self.in_flight + self.granted
    }
}

impl Shares {
    /// At most `window` jobs are in flight in each queue.
    pub fn new(window: usize) -> Arc<Self> {
        Arc::new(Self { window: window.max(1), state: Mutex::default() })
    }

    /// Takes a request in: its jobs go to the queue of `work`, its site counts with `weight`.
    pub(super) fn join(self: &Arc<Self>, request: &RequestId, site: &SiteId, weight: f64, work: Work) -> Ticket {
        let notify = Arc::new(Notify::new());
        let mut state = self.state();
        let level = state.level();
        let own = state.sites.entry(site.clone()).or_insert(Site {
            weight: 1.0,
            used: level.unwrap_or(0.0),
            job_seconds: UNKNOWN_SECONDS,
        });
        own.weight = weight.max(f64::MIN_POSITIVE);
        state.joined += 1;
        let order = state.joined;
        let (site, notify_entry) = (site.clone(), notify.clone());
        let entry = Entry { site, work, order, in_flight: 0, ready: 0, granted: 0, notify: notify_entry };
        state.entries.insert(request.clone(), entry);
        drop(state);
        Ticket { shares: self.clone(), request: request.clone(), notify }
    }

    /// What each request holds, for metrics.
    pub fn holdings(&self) -> Vec<Holding> {
        let state = self.state();
        let holding = |entry: &Entry| Holding {
            site: entry.site.clone(),
            kind: entry.work.0,
            in_flight: entry.in_flight,
            backlog: entry.ready,
        };
        state.entries.values().map(holding).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where sites that work stand: the least any of them has used.
    fn level(&self) -> Option<f64> {
        let active = self.entries.values().filter(|entry| entry.holds() + entry.ready > 0);
        let used = active.filter_map(|entry| self.sites.get(&entry.site)).map(|site| site.used);
        used.min_by(f64::total_cmp)
    }

    /// Gives the free places in the queue of `work` to the requests that want them.
    fn deal(&mut self, work: Work, window: usize) {
        // What each site has used for its weight, with what it holds at its estimate.
        let mut positions: BTreeMap<SiteId, f64> =
            self.sites.iter().map(|(id, site)| (id.clone(), site.used)).collect();
        let mut held = 0;
        for entry in self.entries.values() {
            let cost = self.sites.get(&entry.site).map_or(0.0, Site::job_cost);
            if let Some(position) = positions.get_mut(&entry.site) {
                *position += entry.holds() as f64 * cost;
            }
            held += if entry.work == work { entry.holds() } else { 0 };
        }
        for _ in held..window {
            let wanting = self.entries.values_mut().filter(|entry| entry.work == work && entry.wants());
            let position = |entry: &Entry| positions.get(&entry.site).copied().unwrap_or_default();
            let next = wanting.min_by(|a, b| position(a).total_cmp(&position(b)).then(a.order.cmp(&b.order)));
            let Some(entry) = next else { return };
            entry.granted += 1;
            entry.notify.notify_one();
            if let (Some(position), Some(site)) = (positions.get_mut(&entry.site), self.sites.get(&entry.site)) {
                *position += site.job_cost();
            }
        }
    }
}

/// A request's place among the others. Dropped, it gives back what it held.
#[derive(Debug)]
pub(super) struct Ticket {
    shares: Arc<Shares>,
    request: RequestId,
    notify: Arc<Notify>,
}

impl Ticket {
    /// Says where the request stands, `ended` being the worker-seconds of each of its attempts that ended since the last call,
    /// and gives the number of its ready jobs that may be published now. Those count as in flight from here on.
    pub(super) fn update(&self, in_flight: usize, ready: usize, ended: &[f64]) -> usize {
        let mut state = self.shares.state();
        let level = state.level();
        let Some(entry) = state.entries.get_mut(&self.request) else { return 0 };
        let rested = entry.holds() + entry.ready == 0;
        (entry.in_flight, entry.ready, entry.granted) = (in_flight, ready, entry.granted.min(ready));
        let (id, work) = (entry.site.clone(), entry.work);
        let others = state
            .entries
            .iter()
            .any(|(request, entry)| *request != self.request && entry.site == id && entry.holds() + entry.ready > 0);
        if let Some(site) = state.sites.get_mut(&id) {
            if rested && !others {
                site.used = site.used.max(level.unwrap_or(site.used));
            }
            for seconds in ended {
                site.used += seconds / site.weight;
                site.job_seconds += NEWEST * (seconds - site.job_seconds);
            }
        }
        state.deal(work, self.shares.window);
        let Some(entry) = state.entries.get_mut(&self.request) else { return 0 };
        let granted = std::mem::take(&mut entry.granted);
        entry.in_flight += granted;
        entry.ready -= granted;
        granted
    }

    /// Waits until the request has been given places since its last [`Ticket::update`].
    pub(super) async fn granted(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.shares.state();
        if let Some(entry) = state.entries.remove(&self.request) {
            state.deal(entry.work, self.shares.window);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn join(shares: &Arc<Shares>, request: &str, site: &str, weight: f64) -> Ticket {
        shares.join(&request.parse().unwrap(), &site.parse().unwrap(), weight, (Kind::Synthesise, Class::Batch))
    }

    /// A broker and its workers: jobs are taken in the order in which they were published.
    struct Fleet {
        workers: usize,
        now: f64,
        waiting: VecDeque<usize>,
        /// End and requester of what runs.
        running: Vec<(f64, usize)>,
    }

    /// Requests without end, each job of request `r` taking `seconds[r]`; gives the worker-seconds of each from `from` on.
    fn simulate(tickets: &[Ticket], seconds: &[f64], workers: usize, until: f64) -> Vec<f64> {
        let mut fleet = Fleet { workers, now: 0.0, waiting: VecDeque::new(), running: Vec::new() };
        let mut in_flight = vec![0; tickets.len()];
        let mut used = vec![0.0; tickets.len()];
        let mut ended: Vec<Vec<f64>> = vec![Vec::new(); tickets.len()];
        while fleet.now < until {
            for (number, ticket) in tickets.iter().enumerate() {
                let granted = ticket.update(in_flight[number], 1000, &std::mem::take(&mut ended[number]));
                in_flight[number] += granted;
                fleet.waiting.extend(std::iter::repeat_n(number, granted));
            }
            while fleet.running.len() < fleet.workers {
                let Some(number) = fleet.waiting.pop_front() else { break };
                fleet.running.push((fleet.now + seconds[number], number));
            }
            fleet.running.sort_by(|a, b| b.0.total_cmp(&a.0));
            let Some((end, number)) = fleet.running.pop() else { break };
            fleet.now = end;
            in_flight[number] -= 1;
            used[number] += seconds[number];
            ended[number].push(seconds[number]);
        }
        used
    }

    #[test]
    fn sites_get_worker_seconds_by_weight_whatever_their_jobs_take() {
        let shares = Shares::new(32);
        let tickets =
            [join(&shares, "r1", "one", 1.0), join(&shares, "r2", "two", 2.0), join(&shares, "r4", "four", 4.0)];
        let used = simulate(&tickets, &[7.0, 1.0, 3.0], 8, 20_000.0);
        let total: f64 = used.iter().sum();
        for (used, share) in used.iter().zip([1.0 / 7.0, 2.0 / 7.0, 4.0 / 7.0]) {
            let error = (used / total - share).abs() / share;
            assert!(error < 0.02, "{used} of {total} for a share of {share}");
        }
    }

    #[test]
    fn requests_of_one_site_share_what_the_site_has() {
        let shares = Shares::new(16);
        let tickets = [join(&shares, "a1", "a", 1.0), join(&shares, "a2", "a", 1.0), join(&shares, "b1", "b", 1.0)];
        let used = simulate(&tickets, &[1.0; 3], 4, 2_000.0);
        assert!(((used[0] + used[1]) / used[2] - 1.0).abs() < 0.02, "{used:?}");
    }

    #[test]
    fn a_site_that_rested_is_owed_nothing() {
        let shares = Shares::new(4);
        let busy = join(&shares, "r1", "busy", 1.0);
        let rested = join(&shares, "r2", "rested", 1.0);
        assert_eq!(busy.update(0, 100, &[]), 4);
        for _ in 0..50 {
            assert_eq!(busy.update(3, 100, &[1.0]), 1);
        }
        // Two of the next four places, not all of the next fifty.
        assert_eq!(rested.update(0, 100, &[]), 0);
        let mut places = [0, 0];
        let mut in_flight = [4, 0];
        for _ in 0..20 {
            let (own, other) = if in_flight[0] > 0 { (0, 1) } else { (1, 0) };
            in_flight[own] -= 1;
            let tickets = [&busy, &rested];
            for number in [own, other] {
                let ended = if number == own { vec![1.0] } else { Vec::new() };
                let granted = tickets[number].update(in_flight[number], 100, &ended);
                in_flight[number] += granted;
                places[number] += granted;
            }
        }
        assert!(places[1] >= 9 && places[0] >= 5, "{places:?}");
    }

    #[test]
    fn the_window_is_each_queues_own_and_a_request_that_leaves_gives_back() {
        let shares = Shares::new(2);
        let first = join(&shares, "r1", "a", 1.0);
        let second = join(&shares, "r2", "b", 1.0);
        let training =
            shares.join(&"t1".parse().unwrap(), &"a".parse().unwrap(), 1.0, (Kind::TrainRound, Class::Batch));
        assert_eq!((first.update(0, 5, &[]), second.update(0, 5, &[]), training.update(0, 1, &[])), (2, 0, 1));
        let held: Vec<_> =
            shares.holdings().into_iter().map(|held| (held.kind, held.in_flight, held.backlog)).collect();
        assert_eq!(held, [(Kind::Synthesise, 2, 3), (Kind::Synthesise, 0, 5), (Kind::TrainRound, 1, 0)]);
        drop(first);
        assert_eq!(second.update(0, 5, &[]), 2);
    }

    #[tokio::test]
    async fn who_is_given_a_place_is_told() {
        let shares = Shares::new(1);
        let first = join(&shares, "r1", "a", 1.0);
        let second = join(&shares, "r2", "b", 1.0);
        assert_eq!((first.update(0, 1, &[]), second.update(0, 1, &[])), (1, 0));
        first.update(0, 0, &[0.5]);
        second.granted().await;
        assert_eq!(second.update(0, 1, &[]), 1);
    }
}
