//! Long dispatches in slices: a driver's watchdog ends a tab's GPU process when one command takes seconds, and the desktop stands
//! still while it runs.

use std::cell::Cell;

/// Milliseconds of a slice by the measured rate, which is that of linear layers: kernels that gather their inputs reach half of it.
const SLICE: f64 = 50.0;
/// Milliseconds after which what was asked for is handed to the device: a watchdog looks at all that was handed over at once.
const HANDED: f64 = 100.0;

thread_local! {
    /// Multiply-adds in a millisecond. Until it is measured nothing is cut.
    static RATE: Cell<f64> = const { Cell::new(f64::INFINITY) };
    /// Multiply-adds since work was handed over.
    static WAITING: Cell<f64> = const { Cell::new(0.0) };
}

/// Sets the rate that dispatches are cut by, in multiply-adds a millisecond. False where it is no rate.
#[cfg(any(test, target_family = "wasm"))]
pub fn set_rate(rate: f64) -> bool {
    let known = rate > 0.0;
    if known {
        RATE.set(rate);
    }
    known
}

/// A part of a dispatch: its first workgroup in both directions, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub first: [usize; 2],
    pub groups: [usize; 2],
}

/// A dispatch in slices of whole rows of workgroups, or of parts of a row where one takes too long; `each`: multiply-adds of a
/// workgroup.
pub fn slices(groups: [usize; 2], each: f64) -> Vec<Slice> {
    // A workgroup is never cut.
    let most = (RATE.get() * SLICE / each.max(1.0)).max(1.0) as usize;
    let [across, down] = groups;
    let wide = across.min(most);
    let high = (most / across).clamp(1, down);
    let mut found = Vec::new();
    for y in (0..down).step_by(high) {
        for x in (0..across).step_by(wide) {
            found.push(Slice { first: [x, y], groups: [wide.min(across - x), high.min(down - y)] });
        }
    }
    found
}

/// Notes so many multiply-adds, and says whether it is time to hand over what was asked for.
pub fn time_to_hand_over(work: f64) -> bool {
    let waiting = WAITING.get() + work;
    let due = waiting > RATE.get() * HANDED;
    WAITING.set(if due { 0.0 } else { waiting });
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_dispatch_once_and_keep_to_the_time() {
        for (groups, each, rate) in [
            ([7, 5], 10.0, 1.0),
            ([7, 5], 10.0, 1e9),
            ([1, 1], 1e12, 1.0),
            ([9, 4], 100.0, 8.0),
            ([3, 100], 7.0, 11.0),
        ] {
            assert!(set_rate(rate));
            let found = slices(groups, each);
            let mut seen = vec![0; groups[0] * groups[1]];
            for Slice { first, groups: [wide, high] } in &found {
                let work = (wide * high) as f64 * each;
                assert!(work <= rate * SLICE || wide * high == 1, "{groups:?}");
                for i in 0..wide * high {
                    seen[(first[1] + i / wide) * groups[0] + first[0] + i % wide] += 1;
                }
            }
            assert!(seen.iter().all(|count| *count == 1), "{groups:?}: {seen:?}");
        }
        assert!(!set_rate(0.0) && !set_rate(f64::NAN) && !set_rate(-1.0));
        // Nothing is cut before something was measured.
        set_rate(f64::INFINITY);
        assert_eq!(slices([9, 9], 1e12).len(), 1);
        assert!(!time_to_hand_over(1e30));
        set_rate(1.0);
        WAITING.set(0.0);
        assert_eq!([60.0, 60.0, 60.0].map(time_to_hand_over), [false, true, false]);
        set_rate(f64::INFINITY);
    }
}
