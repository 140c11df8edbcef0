//! Whether counts could come from an even spread: Pearson's chi-square test.

/// The outcome of a chi-square test against equal shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evenness {
    /// The statistic.
    pub(crate) chi_square: f64,
    /// Chance that an even spread gives a statistic at least this large, 0 to 1.
    pub(crate) probability: f64,
}

/// Tests `counts` against equal shares; `None` with fewer than two classes or no observation.
pub(crate) fn evenness(counts: &[u64]) -> Option<Evenness> {
    let total: u64 = counts.iter().sum();
    if counts.len() < 2 || total == 0 {
        return None;
    }
    let expected = total as f64 / counts.len() as f64;
    let chi_square = counts.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum::<f64>();
    let freedom = (counts.len() - 1) as f64;
    Some(Evenness { chi_square, probability: upper_gamma(freedom / 2.0, chi_square / 2.0) })
}

/// The regularised upper incomplete gamma function Q(a, x), by series or continued fraction.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let scale = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 { 1.0 - scale * lower_series(a, x) } else { scale * upper_fraction(a, x) }
}

fn lower_series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..1000 {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * 1e-15 {
            break;
        }
    }
    sum
}

/// Lentz's method for the continued fraction of Q.
fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut product = d;
    for n in 1..1000 {
        let n = f64::from(n);
        let numerator = -n * (n - a);
        b += 2.0;
        d = 1.0 / non_zero(numerator * d + b, TINY);
        c = non_zero(b + numerator / c, TINY);
        let step = d * c;
        product *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    product
}

fn non_zero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// ln Γ(x) for x > 0, by recurrence up to 10 and Stirling's series from there (error below 1e-12).
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift -= x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series =
        inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    shift + (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_has_its_known_values() {
        assert!((ln_gamma(1.0)).abs() < 1e-10);
        assert!((ln_gamma(5.0) - 24f64.ln()).abs() < 1e-10);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-10);
    }

    #[test]
    fn critical_values_of_the_tables_come_out() {
        // Upper 1 % and 5 % points of the chi-square distribution.
        for (freedom, point, probability) in [
            (1.0, 6.635, 0.01),
            (1.0, 3.841, 0.05),
            (10.0, 23.209, 0.01),
            (63.0, 92.010, 0.01),
            (63.0, 82.529, 0.05),
        ] {
            let q = upper_gamma(freedom / 2.0, point / 2.0);
            assert!((q - probability).abs() < 2e-5, "{freedom} degrees: {q}");
        }
    }

    #[test]
    fn equal_counts_are_even_and_lopsided_counts_are_not() {
        let even = evenness(&[10; 64]).unwrap();
        assert!(even.chi_square.abs() < 1e-9 && even.probability > 0.999);
        let lopsided = evenness(&[40, 0, 10, 10]).unwrap();
        assert!(lopsided.probability < 1e-6);
        assert!(evenness(&[5]).is_none() && evenness(&[0, 0]).is_none());
    }
}
