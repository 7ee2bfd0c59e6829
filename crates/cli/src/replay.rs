//! Judging what was recorded again, from nothing but records.
//!
//! Each recorded drift is judged anew from the observation that it names and the baseline version
//! in force, as they are stored; each alert of a rule from its observation and the rule set in
//! force. And the other way round: what is found now and was not recorded then is a difference,
//! too. Pure but for the rule engine's own state; time comes from the records.

use plimsoll_agent::rules::files::{Options, load_texts, options};
use plimsoll_agent::rules::{Engine, Fired, RuleText, Surroundings};
use plimsoll_baseline::{
    Baseline, Flag, Key, LearnConfig, ResolvedNames, State, behaviours, judge,
};
use plimsoll_model::{
    Alert, AlertSource, BaselineId, Behaviour, Container, ContainerState, Drift, DriftClass,
    Instance, Observation, Record, Risk,
};
use plimsoll_rules::MatchMode;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Observations at hand for the verdicts that follow them.
const OBSERVATIONS_MAX: usize = 20_000;
/// Baseline versions at hand, encoded.
const BASELINES_MAX: usize = 10_000;
/// Differences that are told; further ones are counted.
const TOLD_MAX: usize = 1000;

/// What a replay gave.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) observations: u64,
    pub(crate) drifts_same: u64,
    pub(crate) alerts_same: u64,
    pub(crate) differences: Vec<Difference>,
    pub(crate) differences_total: u64,
    /// Why a verdict could not be judged again, and how often.
    pub(crate) not_judged: BTreeMap<String, u64>,
}

/// A verdict that is another one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// The record of the verdict, or of the observation that has none.
    pub(crate) leaf: u64,
    pub(crate) what: String,
}

/// An observation with everything that its verdicts depend on.
struct Judged {
    observation: Observation,
    container: Option<Arc<Container>>,
    behaviours: Vec<Behaviour>,
    /// What the baseline, followed from record to record, finds.
    drifts: Vec<Drift>,
    fired: Vec<String>,
}

/// Which act of whom was recorded, so that only the first of a burst has to be.
type Act = (Option<Instance>, String);

/// Takes records in their order.
pub(crate) struct Replay {
    node: String,
    containers: HashMap<Instance, Arc<Container>>,
    names: ResolvedNames,
    baselines: HashMap<(BaselineId, u64), Vec<u8>>,
    /// Each baseline as it is by now: its last recorded version, and what it learned since.
    in_force: HashMap<BaselineId, Baseline>,
    engine: Engine,
    rules_unknown: Option<String>,
    /// Rules that could fire on that node: a hook that was refused there may be had here.
    active: HashSet<String>,
    judged: HashMap<u64, Judged>,
    order: VecDeque<u64>,
    /// Found now: act → the first observation that shows it.
    found: BTreeMap<Act, u64>,
    recorded: HashSet<Act>,
    outcome: Outcome,
}

impl Replay {
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            containers: HashMap::new(),
            names: ResolvedNames::new(),
            baselines: HashMap::new(),
            in_force: HashMap::new(),
            engine: Engine::default(),
            rules_unknown: Some("the rules in force are not among the records".to_owned()),
            active: HashSet::new(),
            judged: HashMap::new(),
            order: VecDeque::new(),
            found: BTreeMap::new(),
            recorded: HashSet::new(),
            outcome: Outcome::default(),
        }
    }

    /// Identity that is known beforehand: an observation can wait for its container's record.
    pub(crate) fn know(&mut self, container: &Container) {
        self.containers
            .entry(container.instance.clone())
            .or_insert_with(|| Arc::new(container.clone()));
    }

    pub(crate) fn take(&mut self, leaf: u64, record: Record) {
        match record {
            Record::Container(container) => self.container(container),
            Record::Baseline(bytes) => self.baseline(bytes),
            Record::RuleSet(set) => self.rules(&set),
            Record::Observation(observation) => self.observe(leaf, observation),
            Record::Drift(drift) => self.drift(leaf, &drift),
            Record::Alert(alert) => self.alert(leaf, &alert),
            _ => {}
        }
    }

    fn container(&mut self, container: Container) {
        for ip in container.addresses.iter().filter_map(|a| a.parse().ok()) {
            if container.state == ContainerState::Gone {
                self.names.remove_service(ip);
            } else if !container.role.is_empty() {
                self.names.set_service(ip, &container.role);
            }
        }
        self.containers
            .insert(container.instance.clone(), Arc::new(container));
    }

    fn baseline(&mut self, bytes: Vec<u8>) {
        if let Ok(baseline) = Baseline::decode(&bytes) {
            if self.baselines.len() < BASELINES_MAX {
                self.baselines
                    .insert((baseline.id().clone(), baseline.version()), bytes);
            }
            self.in_force.insert(baseline.id().clone(), baseline);
        }
    }

    fn rules(&mut self, set: &plimsoll_model::RuleSet) {
        let texts: Option<Vec<RuleText>> = set
            .files
            .iter()
            .map(|file| {
                Some(RuleText {
                    name: file.name.clone(),
                    // as it was: shown, a text has its control characters written out
                    text: file.text.as_ref()?.to_str_lossy().into_owned(),
                })
            })
            .collect();
        let loaded = match texts {
            None => {
                Err("the texts of the rules in force were too large for their record".to_owned())
            }
            Some(texts) => load_texts(&texts, &options_of(set))
                .map_err(|e| format!("the rules in force do not load here: {e}")),
        };
        match loaded {
            Ok(loaded) => {
                let active = set
                    .rules
                    .iter()
                    .filter(|r| matches!(r.state.as_str(), "active" | "partial"));
                self.active = active.map(|rule| rule.name.clone()).collect();
                self.engine.replace(Arc::new(loaded));
                self.rules_unknown = None;
            }
            Err(why) => self.rules_unknown = Some(why),
        }
    }

    fn observe(&mut self, leaf: u64, observation: Observation) {
        self.outcome.observations += 1;
        self.names.note(&observation);
        let container = observation
            .instance
            .as_ref()
            .and_then(|i| self.containers.get(i))
            .cloned();
        let behaviours = container
            .as_ref()
            .map_or(Vec::new(), |c| behaviours(&observation, c, &self.names));
        let around = Surroundings {
            names: &self.names,
            node: &self.node,
        };
        let fired = self
            .engine
            .judge(&observation, container.as_deref(), around);
        let loaded = self
            .engine
            .loaded()
            .filter(|_| self.rules_unknown.is_none());
        let name = |f: &Fired| loaded.map(|l| &l.set.rule(f.rule).name);
        let fires = |f: &&Fired| name(f).is_some_and(|n| self.active.contains(n));
        let fired: Vec<Fired> = fired.iter().filter(fires).copied().collect();
        let flag = self.engine.flag(&fired);
        let flag = flag.map(|f| (f.rule.to_owned(), f.risk));
        let fired: Vec<String> = fired.iter().filter_map(name).cloned().collect();
        // The first one only: with `match: first` the others were never asked.
        if let Some(rule) = fired.first() {
            self.found
                .entry((observation.instance.clone(), format!("rule {rule}")))
                .or_insert(leaf);
        }
        let drifts = match &container {
            Some(container) => self.follow(leaf, &observation, container, &behaviours, flag),
            None => Vec::new(),
        };
        let judged = Judged {
            observation,
            container,
            behaviours,
            drifts,
            fired,
        };
        self.judged.insert(leaf, judged);
        self.order.push_back(leaf);
        if self.order.len() > OBSERVATIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.judged.remove(&oldest);
        }
    }

    /// Lets the container's baseline take the observation in, as it did then. Only once it is ready
    /// does "nothing was recorded" say something: what it learned before is known as far as the
    /// records reach back.
    fn follow(
        &mut self,
        leaf: u64,
        observation: &Observation,
        container: &Container,
        behaviours: &[Behaviour],
        flag: Option<(String, Risk)>,
    ) -> Vec<Drift> {
        let flag = flag.as_ref();
        let flag = flag.map(|(rule, risk)| Flag { rule, risk: *risk });
        let Some(key) = Key::of(container) else {
            return judge(observation, container, None, behaviours).drifts;
        };
        let new = || {
            Baseline::new(
                key.clone(),
                container,
                LearnConfig::default(),
                observation.at,
            )
        };
        let baseline = self.in_force.entry(key.id()).or_insert_with(new);
        let ready = baseline.state() != State::Learning;
        let verdict = baseline.observe_flagged(observation, container, behaviours, flag);
        let drifts = verdict.drifts;
        if ready {
            for drift in &drifts {
                self.found.entry(act_of(drift)).or_insert(leaf);
            }
        }
        drifts
    }

    fn drift(&mut self, leaf: u64, drift: &Drift) {
        self.recorded.insert(act_of(drift));
        match self.again(drift) {
            Err(why) => self.cannot(why),
            Ok(None) => self.outcome.drifts_same += 1,
            Ok(Some(what)) => self.differs(leaf, format!("drift: {what}")),
        }
    }

    /// What is different now; `None`: nothing.
    fn again(&self, drift: &Drift) -> Result<Option<String>, String> {
        let named = drift
            .observation
            .as_ref()
            .ok_or("the verdict names no observation")?;
        let judged = self.judged.get(&named.leaf).ok_or(
            "its observation is not among the records (removed by retention, or left out)",
        )?;
        let container = judged
            .container
            .as_ref()
            .ok_or("its container is not among the records")?;
        let now = |found: &[Drift]| {
            found
                .iter()
                .find(|now| now.behaviour == drift.behaviour)
                .cloned()
        };
        let reference = drift.baseline.as_ref();
        let recorded = reference.and_then(|r| self.baselines.get(&(r.id.clone(), r.version)));
        let again = match recorded {
            // What a learning baseline takes in is no version of its own in the journal: it has
            // been followed from observation to observation, as far as these are kept.
            _ if drift.quarantined && reference.is_some() => Some(now(&judged.drifts).ok_or(
                "its baseline was still learning, and what it had learned by then is not among the records",
            )?),
            Some(bytes) => {
                let baseline = Baseline::decode(bytes)
                    .map_err(|e| format!("its baseline does not decode: {e}"))?;
                now(&judge(&judged.observation, container, Some(&baseline), &judged.behaviours).drifts)
            }
            None if reference.is_none() => {
                now(&judge(&judged.observation, container, None, &judged.behaviours).drifts)
            }
            None => return Err("its baseline version is not among the records".to_owned()),
        };
        let Some(now) = again else {
            return Ok(Some(format!(
                "was {}, {}; is none now",
                class(drift.class),
                drift.risk.as_str()
            )));
        };
        let same = now.class == drift.class && now.risk == drift.risk;
        Ok((!same).then(|| {
            format!(
                "was {}, {}; is {}, {}",
                class(drift.class),
                drift.risk.as_str(),
                class(now.class),
                now.risk.as_str()
            )
        }))
    }

    fn alert(&mut self, leaf: u64, alert: &Alert) {
        let done = match &alert.source {
            AlertSource::Drift(drift) => {
                self.recorded.insert(act_of(drift));
                self.again(drift)
            }
            AlertSource::Rule(rule) => {
                self.recorded
                    .insert((alert.instance.clone(), format!("rule {}", alert.rule)));
                self.recorded
                    .insert((alert.instance.clone(), format!("rule {rule}")));
                self.rule_again(alert, rule)
            }
        };
        match done {
            Err(why) => self.cannot(why),
            Ok(None) => self.outcome.alerts_same += 1,
            Ok(Some(what)) => self.differs(leaf, format!("alert {}: {what}", alert.id)),
        }
    }

    fn rule_again(&self, alert: &Alert, rule: &str) -> Result<Option<String>, String> {
        if let Some(why) = &self.rules_unknown {
            return Err(why.clone());
        }
        let judged = alert
            .evidence
            .iter()
            .find_map(|id| self.judged.get(&id.leaf));
        let judged = judged.ok_or(
            "its observation is not among the records (removed by retention, or left out)",
        )?;
        let fires = judged
            .fired
            .iter()
            .any(|name| *name == alert.rule || name == rule);
        Ok((!fires).then(|| format!("the rule {:?} fired and does not fire now", alert.rule)))
    }

    fn cannot(&mut self, why: String) {
        *self.outcome.not_judged.entry(why).or_default() += 1;
    }

    fn differs(&mut self, leaf: u64, what: String) {
        self.outcome.differences_total += 1;
        if self.outcome.differences.len() < TOLD_MAX {
            self.outcome.differences.push(Difference { leaf, what });
        }
    }

    /// All records have been taken.
    pub(crate) fn end(mut self) -> Outcome {
        let missing: Vec<(Act, u64)> = std::mem::take(&mut self.found)
            .into_iter()
            .filter(|(act, _)| !self.recorded.contains(act))
            .collect();
        for ((_, act), leaf) in missing {
            self.differs(leaf, format!("{act}: found now, and no record of it then"));
        }
        self.outcome
    }
}

/// How the rules were loaded on that node.
fn options_of(set: &plimsoll_model::RuleSet) -> Options {
    let mode = match set.first_match_only {
        true => MatchMode::First,
        false => MatchMode::All,
    };
    options(mode, &set.hooks_refused)
}

fn act_of(drift: &Drift) -> Act {
    (
        Some(drift.instance.clone()),
        format!("drift {} {}", class(drift.class), drift.behaviour.id()),
    )
}

fn class(class: DriftClass) -> String {
    format!("{class:?}")
}
