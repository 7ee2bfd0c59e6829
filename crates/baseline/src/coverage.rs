//! How much of a workload's behaviour a baseline has seen: sample coverage from incidences.
//!
//! A unit is one instance in one time slot; a behaviour's incidence is the number of units in
//! which it was present. With T units, U incidences, Q1 behaviours present in exactly one unit and
//! Q2 in exactly two, the share of incidence that belongs to seen behaviours is estimated as
//!
//! ```text
//! C = 1 − (Q1/U) · [(T−1)·Q1 / ((T−1)·Q1 + 2·Q2)]                 Q2 > 0
//! C = 1 − (Q1/U) · [(T−1)·(Q1−1) / ((T−1)·(Q1−1) + 2)]            Q2 = 0
//! ```
//!
//! Sources: Chao & Jost 2012, "Coverage-based rarefaction and extrapolation", Ecology 93(12);
//! Chao, Gotelli, Hsieh, Sander, Ma, Colwell & Ellison 2014, "Rarefaction and extrapolation with
//! Hill numbers", Ecological Monographs 84(1), appendix for incidence data; Q2 = 0 as in iNEXT.
//!
//! Left out on purpose: correction for slots that resemble their neighbours. Autocorrelation makes
//! the estimate optimistic, which is why readiness also asks for starts, phases and hours.

/// What the estimator sees, and what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Units sampled (T).
    pub units: u64,
    /// Sum of all incidences (U).
    pub incidences: u64,
    /// Behaviours seen at all.
    pub seen: u64,
    /// Behaviours present in exactly one unit (Q1).
    pub uniques: u64,
    /// Behaviours present in exactly two units (Q2).
    pub duplicates: u64,
}

impl Coverage {
    /// Counts from the incidences of each behaviour over `units` units. Zero incidences (inherited,
    /// not yet seen) do not count.
    pub fn of(units: u64, incidences: impl IntoIterator<Item = u64>) -> Self {
        let mut c = Self {
            units,
            ..Self::default()
        };
        for n in incidences.into_iter().filter(|&n| n > 0) {
            c.seen += 1;
            c.incidences += n;
            c.uniques += u64::from(n == 1);
            c.duplicates += u64::from(n == 2);
        }
        c
    }

    /// Estimated sample coverage, 0 to 1. Nothing sampled covers nothing.
    pub fn value(&self) -> f64 {
        if self.units == 0 || self.incidences == 0 {
            return 0.0;
        }
        // one unit says nothing about what repeats: its uniques are all there is
        let spread = (self.units.saturating_sub(1)) as f64;
        let (q1, q2) = (self.uniques as f64, self.duplicates as f64);
        let a = if self.uniques == 0 {
            0.0
        } else if self.units == 1 {
            1.0
        } else if self.duplicates > 0 {
            spread * q1 / (spread * q1 + 2.0 * q2)
        } else {
            // Q1 = 1, Q2 = 0 would give full coverage; iNEXT's convention is A = 1 there
            match spread * (q1 - 1.0) {
                0.0 => 1.0,
                x => x / (x + 2.0),
            }
        };
        (1.0 - q1 / self.incidences as f64 * a).clamp(0.0, 1.0)
    }

    /// In thousandths, rounded down, so that "1000" means no known reason to expect anything new.
    pub fn permille(&self) -> u32 {
        (self.value() * 1000.0).floor() as u32
    }

    /// Behaviours never seen, at least (Chao2 lower bound).
    pub fn unseen(&self) -> f64 {
        if self.units == 0 {
            return 0.0;
        }
        let (q1, q2) = (self.uniques as f64, self.duplicates as f64);
        let shrink = (self.units - 1) as f64 / self.units as f64;
        if self.duplicates > 0 {
            shrink * q1 * q1 / (2.0 * q2)
        } else {
            shrink * q1 * (q1 - 1.0).max(0.0) / 2.0
        }
    }

    /// New behaviours expected in the next `more` units:
    /// `Q0·[1 − (1 − Q1/(T·Q0 + Q1))^more]` (Chao et al. 2014, extrapolation of incidence data),
    /// and Good–Turing's `more·Q1/T` where no unseen behaviour can be estimated.
    pub fn expected_new(&self, more: f64) -> f64 {
        if self.units == 0 || self.uniques == 0 || more <= 0.0 {
            return 0.0;
        }
        let (q0, q1, t) = (self.unseen(), self.uniques as f64, self.units as f64);
        if q0 <= 0.0 {
            return (q1 / t * more).min(q1);
        }
        q0 * (1.0 - (1.0 - q1 / (t * q0 + q1)).powf(more))
    }

    /// New behaviours expected within a day of one instance.
    pub fn expected_new_a_day(&self, slot_seconds: u32) -> f64 {
        self.expected_new(86_400.0 / f64::from(slot_seconds.max(1)))
    }

    /// In words: `99.3 % covered over 1440 units, about 2 new behaviours a day expected`.
    pub fn statement(&self, slot_seconds: u32) -> String {
        if self.units == 0 || self.incidences == 0 {
            return "nothing sampled yet".to_owned();
        }
        let new = match self.expected_new_a_day(slot_seconds) {
            x if x < 0.05 => "hardly any new behaviour".to_owned(),
            x if x < 0.95 => format!("about {x:.1} new behaviours"),
            x if x < 1.5 => "about 1 new behaviour".to_owned(),
            x => format!("about {x:.0} new behaviours"),
        };
        // shown rounded down: 99.96 % is not 100 %
        let percent = f64::from(self.permille()) / 10.0;
        let units = self.units;
        format!("{percent:.1} % covered over {units} units, {new} a day expected")
    }
}
