//! How complete the data behind an answer is, and Q16.
//!
//! Everything that makes an answer less than whole ends up here: gaps, times when no agent ran,
//! containers whose start was not seen, uncertain clocks, and what retention took away.

use crate::acts::Acts;
use crate::coverage::{Life, Stretch, Watch, length, stretches};
use crate::interval::{Interval, between};
use crate::marks::Mark;
use crate::records::{Body, Filter, RecordsError, Seen};
use crate::say::{Sentences, count};
use crate::survey::{Chosen, Survey};
use crate::tally::Tally;
use crate::{About, AskError};
use plimsoll_api::Completeness;
use plimsoll_api::describe::{span, when, words};
use plimsoll_api::types::{CompletenessGap, Coverage, LostAt, Unwatched};
use plimsoll_model::{
    Gap, GapScope, Instance, Observation, Record, RecordId, RecordKind, Stage, WallNs,
};
use std::collections::{BTreeMap, BTreeSet};

/// Gaps listed in an answer.
const GAPS_MAX: usize = 100;
/// A running agent writes at least a clock anchor every 10 s; a longer silence is an end.
const SILENCE_NS: i64 = 20_000_000_000;
/// A clock this uncertain is worth a word.
const CLOCK_WORTH_A_WORD_NS: u64 = 100_000_000;

/// What is read in any case of observations that are too many.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Look<'a> {
    /// Those around this one.
    pub(crate) around: Option<&'a RecordId>,
    /// And these.
    pub(crate) too: &'a [RecordId],
}

impl<'a> Look<'a> {
    /// Around the alert that the question is about.
    pub(crate) fn at(about: &'a About<'_>) -> Self {
        let alert = about.case.alert.as_ref();
        Self {
            around: alert.and_then(|case| case.all_evidence().next()),
            too: &[],
        }
    }
}

impl Tally {
    /// A record that was visited.
    fn seen(
        &mut self,
        about: &About<'_>,
        filter: &Filter,
        seen: Seen,
        each: &mut dyn FnMut(RecordId, WallNs, Record),
    ) {
        match seen.body {
            // more than was asked for, or found by chance
            Body::Record(record) if !filter.holds(&record) => return,
            Body::Record(record) => each(seen.id, seen.wall, record),
            Body::Pruned => {
                self.pruned += 1;
                self.removed
                    .note(about.removals, seen.id.leaf, filter.kinds);
            }
            Body::Damaged => self.damaged += 1,
        }
        self.read += 1;
    }
}

impl About<'_> {
    /// Visits records, counting what is missing of them.
    pub(crate) fn visit(
        &self,
        filter: &Filter,
        tally: &mut Tally,
        each: &mut dyn FnMut(RecordId, WallNs, Record),
    ) -> Result<(), RecordsError> {
        self.records
            .visit(filter, &mut |seen| tally.seen(self, filter, seen, each))
    }

    /// Visits observations of some sorts, and where they are too many those that [`Survey`] chooses;
    /// how many there are of all sorts, which were looked at, too, if only as what they are.
    pub(crate) fn visit_sorts(
        &self,
        filter: &Filter,
        look: &Look<'_>,
        tally: &mut Tally,
        each: &mut dyn FnMut(RecordId, Observation),
    ) -> Result<u64, RecordsError> {
        let ours = |id: &&RecordId| id.origin == *self.node();
        let mut survey = Survey::new(
            self.read_max,
            look.around.filter(|id| ours(id)).map(|id| id.leaf),
        );
        self.records.survey(filter, &mut survey, &mut |seen| {
            tally.seen(self, filter, seen, &mut |_, _, _| {});
        })?;
        let Chosen { mut leaves, left } = survey.choose(filter.acts.unwrap_or(Acts::ALL));
        let more: BTreeSet<u64> = match left {
            0 => BTreeSet::new(),
            _ => look.too.iter().filter(ours).map(|id| id.leaf).collect(),
        };
        let more = more
            .difference(&leaves.iter().copied().collect())
            .copied()
            .collect::<Vec<_>>();
        leaves.extend(&more);
        leaves.sort_unstable();
        let (mut given, mut beside) = (0, 0);
        self.records.visit_leaves(filter, &leaves, &mut |seen| {
            let is_more = more.binary_search(&seen.id.leaf).is_ok();
            // of these, what cannot be read was told above
            if is_more && !matches!(seen.body, Body::Record(_)) {
                return;
            }
            tally.seen(self, filter, seen, &mut |id, _, record| {
                given += 1;
                beside += u64::from(is_more);
                if let Record::Observation(o) = record
                    && o.instance == filter.instance
                {
                    each(id, o);
                }
            });
        })?;
        let (observed, left) = (survey.count(), left.saturating_sub(beside));
        tally.read += observed.saturating_sub(given + left);
        if left > 0 {
            let most = tally.left.unwrap_or_default();
            tally.left = Some(most.max((left, given)));
        }
        Ok(observed)
    }

    /// The observations of the subject's container in the interval that are of these sorts.
    pub(crate) fn observations(
        &self,
        looked: Acts,
        tally: &mut Tally,
        each: impl FnMut(RecordId, Observation),
    ) -> Result<(), RecordsError> {
        self.observations_at(looked, &Look::at(self), tally, each)
    }

    /// The same, with what is read in any case.
    pub(crate) fn observations_at(
        &self,
        looked: Acts,
        look: &Look<'_>,
        tally: &mut Tally,
        mut each: impl FnMut(RecordId, Observation),
    ) -> Result<(), RecordsError> {
        let mut filter = Filter::of(&[RecordKind::Observation]).acts(looked);
        if let Some(instance) = &self.case.instance {
            filter = filter.about(instance);
        }
        let (from, to) = self.widened();
        filter = filter.between(from, to);
        let mut uncertainty = 0;
        let observed = self.visit_sorts(&filter, look, tally, &mut |id, o| {
            uncertainty = uncertainty.max(o.at.uncertainty_ns);
            each(id, o);
        })?;
        tally.uncertainty_ns = tally.uncertainty_ns.max(uncertainty);
        tally.observations = Some(tally.observations.unwrap_or(0).max(observed));
        Ok(())
    }

    /// The interval, and a second more at an end that is the container's own: its first and last
    /// events are stamped by other clock readings than its identity.
    fn widened(&self) -> (WallNs, WallNs) {
        let second = 1_000_000_000;
        let i = self.interval;
        let from = if Some(i.from) == self.case.started {
            i.from.0 - second
        } else {
            i.from.0
        };
        let to = if Some(i.to) == self.case.gone {
            i.to.0 + second
        } else {
            i.to.0
        };
        (WallNs(from), WallNs(to))
    }
}

/// A gap that touches the interval.
struct Touching {
    id: RecordId,
    gap: Gap,
}

/// What the records say about blindness in the interval.
#[derive(Default)]
struct Blindness {
    gaps: Vec<Touching>,
    total: u64,
    lost: u64,
    uncounted: u64,
    lives: Vec<Life>,
    steps: Vec<(RecordId, WallNs, i64)>,
    hooks_refused: Option<(RecordId, String)>,
    /// By stage: gaps, events, and whether some were not counted.
    stages: BTreeMap<Stage, (u64, u64, bool)>,
    /// Records about losses and lives that cannot be read any more.
    pruned: u64,
    damaged: u64,
}

fn blindness(about: &About<'_>) -> Result<Blindness, RecordsError> {
    let mut found = Blindness::default();
    let interval = about.interval;
    // a gap's interval may lie long before its record, and an agent may have started long before
    let kinds = [RecordKind::Gap, RecordKind::Lifecycle];
    about.records.visit(&Filter::of(&kinds), &mut |seen| {
        // what cannot be read any more can only speak of what was before it
        let may_matter = seen.wall >= interval.from;
        match seen.body {
            Body::Record(Record::Gap(gap)) if concerns(&gap, about) => found.gap(seen.id, gap),
            Body::Record(Record::Lifecycle(l)) => found.lifecycle(seen.id, &l),
            Body::Pruned => found.pruned += u64::from(may_matter),
            Body::Damaged => found.damaged += u64::from(may_matter),
            Body::Record(_) => {}
        }
    })?;
    // a clock a moment before the interval shows that the agent lived into it
    let from = WallNs(interval.from.0.saturating_sub(SILENCE_NS));
    found.signs_of_life(about, from, interval.to)?;
    let mut clocks = Filter::of(&[RecordKind::Clock]).between(from, interval.to);
    clocks.marks = vec![Mark::Step];
    about.records.visit(&clocks, &mut |seen| {
        let Body::Record(Record::Clock(anchor)) = seen.body else {
            return;
        };
        let inside = interval.touches(anchor.wall, anchor.wall);
        if anchor.step_ns != 0 && inside && found.steps.len() < GAPS_MAX {
            found.steps.push((seen.id, anchor.wall, anchor.step_ns));
        }
    })?;
    Ok(found)
}

fn concerns(gap: &Gap, about: &About<'_>) -> bool {
    let ours = match &gap.scope {
        GapScope::Node => true,
        GapScope::Container(instance) => about
            .case
            .instance
            .as_ref()
            .is_none_or(|i: &Instance| i == instance),
    };
    ours && about.interval.touches(gap.from.wall, gap.to.wall)
}

impl Blindness {
    fn gap(&mut self, id: RecordId, gap: Gap) {
        self.total += 1;
        let (gaps, events, more) = self.stages.entry(gap.stage).or_default();
        *gaps += 1;
        match gap.count {
            Some(n) => {
                self.lost += n;
                *events += n;
            }
            None => {
                self.uncounted += 1;
                *more = true;
            }
        }
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(Touching { id, gap });
        }
    }

    fn lifecycle(&mut self, id: RecordId, l: &plimsoll_model::record::Lifecycle) {
        match l.what.as_str() {
            "start" => {
                // the programs of the one before went on recording until this one read them
                let since = l.details.iter().find(|(key, _)| key == "watched_since");
                let since = since.and_then(|(_, ns)| ns.parse().ok()).map(WallNs);
                let from = since.map_or(l.at.wall, |since| since.min(l.at.wall));
                if let (Some(before), true) = (self.lives.last_mut(), since.is_some()) {
                    before.stopped = Some(before.stopped.map_or(from, |s| s.min(from)));
                }
                let until = l.details.iter().find(|(key, _)| key == "watched_until");
                let until = until.and_then(|(_, ns)| ns.parse().ok()).map(WallNs);
                if let (Some(before), Some(until)) = (self.lives.last_mut(), until) {
                    before.stopped = Some(until.min(l.at.wall));
                }
                self.lives.push(Life {
                    from,
                    stopped: None,
                    last_sign: None,
                    evidence: vec![id.clone()],
                });
            }
            "stop" => {
                if let Some(life) = self.lives.last_mut() {
                    life.stopped = Some(l.at.wall);
                    life.evidence.push(id.clone());
                }
            }
            _ => {}
        }
        // the agent's start names every hook, each with its mechanism or `refused`
        let refused = l.details.iter().filter(|(_, how)| how == "refused");
        let kinds: Vec<&str> = refused
            .filter_map(|(key, _)| key.strip_prefix("hook "))
            .collect();
        if !kinds.is_empty() {
            self.hooks_refused = Some((id, kinds.join(", ")));
        }
    }

    /// The last clocks of agents that died: each belongs to the last life that had begun by then.
    fn signs_of_life(
        &mut self,
        about: &About<'_>,
        from: WallNs,
        to: WallNs,
    ) -> Result<(), RecordsError> {
        let mut next = None;
        for life in self.lives.iter_mut().rev() {
            let until = next.map_or(to, |next: WallNs| to.min(WallNs(next.0 - 1)));
            let since = from.max(life.from);
            // of one that was stopped, or that runs still, the end is known without
            if next.is_some() && life.stopped.is_none() && since <= until {
                life.last_sign = about.records.latest(RecordKind::Clock, since, until)?;
            }
            next = Some(next.map_or(life.from, |next| next.min(life.from)));
        }
        Ok(())
    }

    fn stretches(&self, about: &About<'_>) -> Vec<Stretch> {
        let last = about.records.span().map(|s| s.last);
        stretches(about.interval, &self.lives, last, SILENCE_NS)
    }

    fn coverage(&self, stretches: &[Stretch], tally: &Tally) -> Coverage {
        let of = |watch| {
            let ours = stretches.iter().filter(|s| s.watch == watch);
            ours.take(GAPS_MAX).map(unwatched).collect()
        };
        let lost = self
            .stages
            .iter()
            .map(|(stage, (gaps, events, more))| LostAt {
                stage: stage.as_str().to_owned(),
                gaps: *gaps,
                events: *events,
                at_least: *more,
            });
        let kinds = self
            .hooks_refused
            .iter()
            .flat_map(|(_, kinds)| kinds.split(", "));
        Coverage {
            observed_ns: length(stretches, Watch::Observed),
            blind_ns: length(stretches, Watch::Blind),
            unknown_ns: length(stretches, Watch::Unknown),
            observations: tally.observations,
            lost: lost.collect(),
            blind: of(Watch::Blind),
            unknown: of(Watch::Unknown),
            unseen_kinds: kinds.map(words).collect(),
            removed: tally.pruned + self.pruned,
            damaged: tally.damaged + self.damaged,
        }
    }
}

fn unwatched(s: &Stretch) -> Unwatched {
    Unwatched {
        from: s.from.rfc3339(),
        to: s.to.rfc3339(),
        why: s.why.to_owned(),
        evidence: s.evidence.iter().take(4).map(ToString::to_string).collect(),
    }
}

/// The completeness of an answer over the interval.
pub(crate) fn judge(about: &About<'_>, tally: &Tally) -> Result<Completeness, AskError> {
    let blind = blindness(about)?;
    let interval = about.interval;
    let mut limits = tally.limits.clone();
    let stretches = blind.stretches(about);
    for s in stretches
        .iter()
        .filter(|s| s.watch == Watch::Blind)
        .take(GAPS_MAX)
    {
        limits.push(format!(
            "No agent ran {} ({}).",
            between(s.from, s.to),
            s.why
        ));
    }
    let begun = stretches.first().filter(|s| s.watch == Watch::Unknown);
    if let Some(s) = begun.filter(|s| about.records.span().is_some_and(|j| j.first < s.to)) {
        limits.push(format!(
            "Whether an agent ran {} is not known.",
            between(s.from, s.to)
        ));
    }
    if blind.pruned + blind.damaged > 0 {
        limits.push(format!(
            "{} about losses or the agent's life cannot be read any more (removed by retention: {}, damaged: {}): losses may be missing here.",
            count(blind.pruned + blind.damaged, "record"), blind.pruned, blind.damaged
        ));
    }
    match about.records.span() {
        None => limits.push("The journal holds no record.".to_owned()),
        Some(s) if s.first > interval.from => {
            limits.push(format!(
                "The journal begins at {}; nothing before that is known.",
                when(s.first)
            ));
        }
        Some(_) => {}
    }
    if let Some(s) = about.records.span()
        && s.last < interval.to
        && about.case.gone.is_none_or(|gone| gone > s.last)
        && interval.to.0 - s.last.0 > SILENCE_NS
    {
        limits.push(format!(
            "The journal ends at {}; nothing after that is known.",
            when(s.last)
        ));
    }
    if about.container().is_some_and(|c| c.found_running) {
        limits.push("The container ran before the agent took it up: its start, and what it did until then, was not observed.".to_owned());
    }
    if let Some(why) = about
        .container()
        .map(|c| &c.unknown_because)
        .filter(|w| !w.is_empty())
    {
        limits.push(format!(
            "Part of the container's identity is unknown: {why}."
        ));
    }
    for (_, at, step) in &blind.steps {
        limits.push(format!(
            "The wall clock stepped by {}{} at {}: times around it are uncertain.",
            if *step < 0 { "-" } else { "" },
            span(step.unsigned_abs()),
            when(*at)
        ));
    }
    if let Some((_, refused)) = &blind.hooks_refused {
        limits.push(format!("The kernel lets these kinds of events not be seen: {refused}; `plimsoll doctor` says what that costs."));
    }
    if tally.pruned > 0 {
        limits.push(format!(
            "Retention has removed the content of {} in the interval.",
            count(tally.pruned, "record")
        ));
    }
    if let Some((left, _)) = tally.left {
        limits.push(format!(
            "{} of the container that the question looks at were counted and not read.",
            count(left, "act")
        ));
    }
    if tally.damaged > 0 {
        limits.push(format!(
            "{} could not be read: damaged.",
            count(tally.damaged, "record")
        ));
    }
    if tally.uncertainty_ns >= CLOCK_WORTH_A_WORD_NS {
        limits.push(format!(
            "Times are uncertain by up to {}.",
            span(tally.uncertainty_ns)
        ));
    }
    if about.directory.dropped > 0 {
        limits.push(format!(
            "{} more than can be held in memory; the oldest were not looked at.",
            count(about.directory.dropped, "container instance")
        ));
    }
    let watched = about.records.span().is_some();
    let level = match (watched, blind.total, limits.is_empty()) {
        (false, _, _) => "unknown",
        (true, 0, true) => "complete",
        _ => "partial",
    };
    Ok(Completeness {
        summary: words(&summary(level, interval, &blind, limits.len(), tally)),
        level: level.to_owned(),
        from: Some(interval.from.rfc3339()),
        to: Some(interval.to.rfc3339()),
        gaps: blind.gaps.iter().map(shown).collect(),
        gaps_total: blind.total,
        lost_at_least: blind.lost,
        limits: limits.iter().map(|l| words(l)).collect(),
        clock_uncertainty_ns: tally.uncertainty_ns,
        records_read: tally.read,
        coverage: blind.coverage(&stretches, tally),
    })
}

fn shown(t: &Touching) -> CompletenessGap {
    CompletenessGap {
        stage: t.gap.stage.as_str().to_owned(),
        from: t.gap.from.wall.rfc3339(),
        to: t.gap.to.wall.rfc3339(),
        count: t.gap.count,
        reason: words(&t.gap.reason),
        record: Some(t.id.to_string()),
    }
}

fn summary(
    level: &str,
    interval: Interval,
    blind: &Blindness,
    limits: usize,
    tally: &Tally,
) -> String {
    let looked = format!(
        "looked at {}, {}",
        count(tally.read, "record"),
        interval.text()
    );
    match level {
        "complete" => format!("No gap is recorded {} ({looked}).", interval.text())
            .replace(&format!(", {}", interval.text()), ""),
        "unknown" => format!("Nothing is known {}: no record covers it.", interval.text()),
        _ => {
            let mut parts = Vec::new();
            if blind.total > 0 {
                let uncounted = if blind.uncounted > 0 {
                    " and an unknown number more"
                } else {
                    ""
                };
                parts.push(format!(
                    "{} with {} known to be lost{uncounted}",
                    count(blind.total, "gap"),
                    count(blind.lost, "event")
                ));
            }
            if limits > 0 {
                parts.push(count(limits as u64, "other limit"));
            }
            format!("Not whole: {}; {looked}.", parts.join(", "))
        }
    }
}

/// Q16.
pub(crate) fn gaps(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let blind = blindness(about)?;
    let interval = about.interval;
    say.tally().read += blind.total;
    let mut stages: BTreeMap<Stage, Vec<&Touching>> = BTreeMap::new();
    for touching in &blind.gaps {
        stages.entry(touching.gap.stage).or_default().push(touching);
    }
    for (stage, gaps) in &stages {
        say_stage(about, *stage, gaps, say);
    }
    if blind.total > blind.gaps.len() as u64 {
        let more = blind.total - blind.gaps.len() as u64;
        say.unknown(format!(
            "{} are not listed here: `plimsoll gaps` has them all.",
            count(more, "more gap")
        ));
    }
    let stretches = blind.stretches(about);
    for s in stretches
        .iter()
        .filter(|s| s.watch == Watch::Blind)
        .take(GAPS_MAX)
    {
        say.observed(
            format!(
                "No agent ran {} ({}; {}): nothing was seen.",
                between(s.from, s.to),
                span((s.to.0 - s.from.0).unsigned_abs()),
                s.why
            ),
            &s.evidence,
        );
    }
    for s in stretches
        .iter()
        .filter(|s| s.watch == Watch::Unknown)
        .take(GAPS_MAX)
    {
        let lasted = span((s.to.0 - s.from.0).unsigned_abs());
        say.unknown(format!(
            "Whether an agent watched {} ({lasted}) is not known: {}.",
            between(s.from, s.to),
            s.why
        ));
    }
    for (id, at, step) in &blind.steps {
        say.observed(
            format!(
                "The wall clock stepped by {}{} at {}.",
                if *step < 0 { "-" } else { "" },
                span(step.unsigned_abs()),
                when(*at)
            ),
            [id],
        );
    }
    if let Some((id, refused)) = &blind.hooks_refused {
        say.observed(
            format!("The kernel lets these kinds of events not be seen: {refused}."),
            [id],
        );
    }
    if about.container().is_some_and(|c| c.found_running) {
        let known = about
            .case
            .instance
            .as_ref()
            .and_then(|i| about.directory.get(i));
        say.observed(
            "The container ran before the agent took it up: its start was not observed.",
            known.into_iter().flat_map(|k| &k.evidence),
        );
    }
    let watched = length(&stretches, Watch::Observed) > 0;
    if watched && blind.total == 0 && stretches.iter().all(|s| s.watch != Watch::Blind) {
        let evidence: Vec<_> = blind
            .lives
            .iter()
            .flat_map(|l| &l.evidence)
            .cloned()
            .collect();
        say.inferred(
            format!("No gap is recorded {}: an agent ran, and it counts what it loses. A loss that it could not notice cannot be excluded.", interval.text()),
            &evidence,
        );
    }
    Ok(())
}

fn say_stage(about: &About<'_>, stage: Stage, gaps: &[&Touching], say: &mut Sentences) {
    let lost: u64 = gaps.iter().filter_map(|t| t.gap.count).sum();
    let uncounted = gaps.iter().any(|t| t.gap.count.is_none());
    let from = gaps
        .iter()
        .map(|t| t.gap.from.wall)
        .min()
        .unwrap_or(about.interval.from);
    let to = gaps
        .iter()
        .map(|t| t.gap.to.wall)
        .max()
        .unwrap_or(about.interval.to);
    let ours = gaps
        .iter()
        .any(|t| matches!(t.gap.scope, GapScope::Container(_)));
    let how_many = match (lost, uncounted) {
        (0, true) => "an unknown number of events".to_owned(),
        (n, true) => format!("at least {}", count(n, "event")),
        (n, false) => count(n, "event"),
    };
    let mut reasons: Vec<&str> = gaps
        .iter()
        .map(|t| t.gap.reason.as_str())
        .filter(|r| !r.is_empty())
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    reasons.truncate(3);
    let because = if reasons.is_empty() {
        String::new()
    } else {
        format!(": {}", reasons.join("; "))
    };
    let whose = if ours {
        "of this container"
    } else {
        "of the whole node"
    };
    say.observed(
        format!(
            "{} ({}): {how_many} {whose} {}, in {}{because}.",
            lost_where(stage),
            stage.as_str(),
            between(from, to),
            count(gaps.len() as u64, "gap")
        ),
        gaps.iter().map(|t| &t.id),
    );
}

/// A stage in words.
fn lost_where(stage: Stage) -> &'static str {
    match stage {
        Stage::BulkRing => "Lost for want of room between kernel and agent",
        Stage::AlertRing => "Lost alert-class events between kernel and agent",
        Stage::Recursion => "Skipped by the kernel, because a probe was running already",
        Stage::Scratch => "Lost for want of scratch space in the kernel",
        Stage::KernelMap => "Lost because a kernel table was full",
        Stage::Decode => "Not understood when they came from the kernel",
        Stage::Queue => "Lost because a queue of the agent was full",
        Stage::Journal => "Seen but not written to the journal",
        Stage::AgentDown => "The agent was not running",
        Stage::Hook => "Not seen at all, because a hook is missing",
        Stage::Retention => "Removed by retention",
        Stage::Damage => "Damaged in the journal",
        Stage::Identity => "Seen, but not attributed to a container",
        Stage::Sampled => "Sampled: more happened than was looked at",
        Stage::Table => "Forgotten by a table of bounded size",
        Stage::Clock => "Times are uncertain, because the wall clock stepped",
        Stage::Sequence => "Numbered by the kernel, and never come out of their ring",
        Stage::Records => "Seen, but what was found about it was not kept",
        Stage::Handover => "In the hands of an agent that was killed, at most",
        Stage::Enforcement => "Seen, but not held against the baseline by enforcement",
    }
}
