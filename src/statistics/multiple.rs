//! Many tests at once.

/// Holm's p-values, in the order given: who rejects those at most 0.05 is wrong anywhere in at most 5 % of the cases.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut largest: f64 = 0.0;
    adjusted(p, |rank, count, p| {
        largest = largest.max(p * (count - rank) as f64).min(1.0);
        largest
    })
}

/// Benjamini and Hochberg's: of those at most 0.05, at most 5 % are expected to be false.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut smallest: f64 = 1.0;
    let reversed: Vec<f64> = p.iter().map(|p| -p).collect();
    // From the largest p down.
    adjusted(&reversed, |rank, count, p| {
        smallest = smallest.min(-p * count as f64 / (count - rank) as f64);
        smallest
    })
}

/// Values in their own order, each made from its rank among the ascending `p`, from 0, their number, and itself.
fn adjusted(p: &[f64], mut adjust: impl FnMut(usize, usize, f64) -> f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|one, other| p[*one].total_cmp(&p[*other]));
    let mut values = vec![0.0; p.len()];
    for (rank, index) in order.into_iter().enumerate() {
        values[index] = adjust(rank, p.len(), p[index]);
    }
    values
}
