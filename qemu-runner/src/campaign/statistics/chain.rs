//! The steady state of a Markov chain.
//!
//! # References
//! Grassmann, Taksar and Heyman, Operations Research 33 (1985): elimination without subtraction.

/// The share of time that a chain spends in each state in the long run, from the rate of each
/// transition; `None` if some state is never left, or never reached again, so that there is none.
pub fn steady_state(rates: &[Vec<f64>]) -> Option<Vec<f64>> {
    let states = rates.len();
    let mut rates = rates.to_vec();
    // Each state in turn is cut out: who would have gone there goes on to where it would have gone.
    for last in (1..states).rev() {
        let out: f64 = rates[last][..last].iter().sum();
        if out <= 0.0 {
            return None;
        }
        for from in 0..last {
            rates[from][last] /= out;
            for to in (0..last).filter(|&to| to != from) {
                rates[from][to] += rates[from][last] * rates[last][to];
            }
        }
    }
    let mut share = vec![1.0];
    while share.len() < states {
        let state = share.len();
        let into = share.iter().zip(&rates);
        let flows = into.map(|(share, rates)| share * rates[state]);
        share.push(flows.sum());
    }
    let total: f64 = share.iter().sum();
    let known = states > 0 && share.iter().all(|&share| share > 0.0);
    known.then(|| share.iter().map(|share| share / total).collect())
}
