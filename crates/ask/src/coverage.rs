//! What part of an interval was watched: observed, blind, or unknown. Pure, over the agent's lives.
//!
//! - *observed*: an agent ran; what it lost then is counted in gaps;
//! - *blind*: the records say that none ran: from a stop, or a death, to the next start;
//! - *unknown*: nothing says whether one ran: before the first start, and behind the journal's end.

use crate::interval::Interval;
use plimsoll_model::{RecordId, WallNs};

/// One run of the agent.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) from: WallNs,
    /// When it stopped; `None`: no stop is recorded.
    pub(crate) stopped: Option<WallNs>,
    /// The last clock of it in the interval: what is known of its end when it died.
    pub(crate) last_sign: Option<WallNs>,
    pub(crate) evidence: Vec<RecordId>,
}

/// How much is known of a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    Observed,
    Blind,
    Unknown,
}

/// A stretch in which the watch is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: WallNs,
    pub(crate) to: WallNs,
    pub(crate) watch: Watch,
    pub(crate) why: &'static str,
    pub(crate) evidence: Vec<RecordId>,
}

/// The interval in stretches, in order, without holes and overlaps. `last` is the journal's last
/// record; a running agent writes at least once in `silence_ns`.
pub(crate) fn stretches(
    interval: Interval,
    lives: &[Life],
    last: Option<WallNs>,
    silence_ns: i64,
) -> Vec<Stretch> {
    let mut all = Vec::new();
    let mut put = |from: WallNs, to: WallNs, watch, why, evidence: Vec<RecordId>| {
        let (from, to) = (from.max(interval.from), to.min(interval.to));
        if from < to {
            all.push(Stretch {
                from,
                to,
                watch,
                why,
                evidence,
            });
        }
    };
    let Some(first) = lives.first() else {
        put(
            interval.from,
            interval.to,
            Watch::Unknown,
            "no start of an agent is recorded",
            vec![],
        );
        return all;
    };
    let before = "no start of an agent is recorded before";
    put(
        interval.from,
        first.from,
        Watch::Unknown,
        before,
        first.evidence.clone(),
    );
    for (n, life) in lives.iter().enumerate() {
        let next = lives.get(n + 1);
        let beyond = WallNs(
            last.map_or(life.from, |l| l.max(life.from))
                .0
                .saturating_add(silence_ns),
        );
        let until = next.map_or(interval.to, |l| l.from);
        let end = match (life.stopped, next) {
            (Some(stopped), _) => stopped,
            // it died: its last clock is the last that is known of it
            (None, Some(_)) => life.last_sign.unwrap_or(life.from),
            (None, None) => beyond,
        };
        let end = end.max(life.from).min(until.max(life.from));
        put(life.from, end, Watch::Observed, "", life.evidence.clone());
        let both = life
            .evidence
            .iter()
            .chain(next.iter().flat_map(|l| &l.evidence));
        let both: Vec<RecordId> = both.cloned().collect();
        match (life.stopped, next) {
            (Some(_), _) => put(end, until, Watch::Blind, "the agent was stopped", both),
            (None, Some(_)) => put(end, until, Watch::Blind, "the agent had died", both),
            (None, None) => put(
                end,
                until,
                Watch::Unknown,
                "the journal ends before",
                vec![],
            ),
        }
    }
    all
}

/// How long all stretches of one kind are together, nanoseconds.
pub(crate) fn length(stretches: &[Stretch], watch: Watch) -> u64 {
    let ours = stretches.iter().filter(|s| s.watch == watch);
    ours.map(|s| (s.to.0 - s.from.0).unsigned_abs()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(from: i64, stopped: Option<i64>, last_sign: Option<i64>) -> Life {
        Life {
            from: WallNs(from),
            stopped: stopped.map(WallNs),
            last_sign: last_sign.map(WallNs),
            evidence: vec![],
        }
    }

    fn of(from: i64, to: i64, lives: &[Life], last: i64) -> Vec<(i64, i64, Watch)> {
        let interval = Interval {
            from: WallNs(from),
            to: WallNs(to),
        };
        let all = stretches(interval, lives, Some(WallNs(last)), 20);
        all.iter().map(|s| (s.from.0, s.to.0, s.watch)).collect()
    }

    use Watch::{Blind, Observed, Unknown};

    #[test]
    fn a_running_agent_observes_up_to_the_last_that_is_known_of_it() {
        assert_eq!(of(10, 90, &[life(0, None, None)], 90), [(10, 90, Observed)]);
        assert_eq!(
            of(10, 200, &[life(0, None, None)], 90),
            [(10, 110, Observed), (110, 200, Unknown)]
        );
    }

    #[test]
    fn between_a_stop_and_the_next_start_nobody_watched() {
        let lives = [life(0, Some(40), None), life(60, None, None)];
        assert_eq!(
            of(10, 90, &lives, 90),
            [(10, 40, Observed), (40, 60, Blind), (60, 90, Observed)]
        );
        assert_eq!(of(41, 59, &lives, 90), [(41, 59, Blind)]);
    }

    #[test]
    fn an_agent_that_died_watched_until_its_last_sign() {
        let lives = [life(0, None, Some(35)), life(60, None, None)];
        assert_eq!(
            of(10, 90, &lives, 90),
            [(10, 35, Observed), (35, 60, Blind), (60, 90, Observed)]
        );
        // without a sign in the interval it is not taken to have watched any of it
        let lives = [life(0, None, None), life(60, None, None)];
        assert_eq!(
            of(10, 70, &lives, 90),
            [(10, 60, Blind), (60, 70, Observed)]
        );
    }

    #[test]
    fn before_the_first_start_nothing_is_known() {
        assert_eq!(
            of(0, 90, &[life(30, None, None)], 90),
            [(0, 30, Unknown), (30, 90, Observed)]
        );
        assert_eq!(of(0, 90, &[], 90), [(0, 90, Unknown)]);
    }

    #[test]
    fn a_stopped_agent_that_never_came_back_is_blind_until_now() {
        assert_eq!(
            of(10, 90, &[life(0, Some(40), None)], 40),
            [(10, 40, Observed), (40, 90, Blind)]
        );
    }

    #[test]
    fn stretches_fill_the_interval_whatever_the_lives_say() {
        // clocks that stepped may put a start before the stop of the life before
        let lives = [
            life(50, Some(80), None),
            life(60, None, Some(55)),
            life(70, Some(65), None),
        ];
        let all = of(0, 100, &lives, 90);
        let mut at = 0;
        for (from, to, _) in &all {
            assert!(*from >= at && from < to, "{all:?}");
            at = *to;
        }
        assert_eq!(at, 100, "{all:?}");
    }
}
