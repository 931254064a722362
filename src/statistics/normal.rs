//! The standard normal distribution.

/// Its quantile for a two-sided 95 % interval.
pub(super) const NORMAL_95: f64 = 1.959_963_984_540_054;

/// P(Z <= z), good to 1.2e-7 of itself: Press and others, Numerical Recipes, `erfcc`.
pub(super) fn normal_lower_tail(z: f64) -> f64 {
    const COEFFICIENTS: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let sum = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let upper = 0.5 * t * (sum - x * x).exp();
    if z > 0.0 { 1.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_tails_of_a_table() {
        for (z, expected) in
            [(0.0, 0.5), (-NORMAL_95, 0.025), (NORMAL_95, 0.975), (-3.0, 0.001_349_898), (-6.0, 9.865_876e-10)]
        {
            let found = normal_lower_tail(z);
            assert!((found / expected - 1.0).abs() < 3e-7, "{z}: {found}, expected {expected}");
        }
    }
}
