/// When the requests that run at a backend will have ended, if no new ones come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DrainOutlook {
    /// After this time all have ended as likely as not, seconds.
    pub median_seconds: f64,
    /// After this time all have ended in 95 cases of 100, seconds.
    pub p95_seconds: f64,
}

/// When `requests` that run at a backend will all have ended, whose answers take `response_seconds` on average; none when
/// that is not known.
///
/// How long answers still take is taken for exponentially distributed and independent: however long one has run, the mean is
/// what is left. Then all have ended by `t` with probability `(1 - exp(-t / mean))^requests` (the greatest of independent values), so
/// the quantile `q` is `-mean ln(1 - q^(1 / requests))`.
pub fn drain_outlook(requests: f64, response_seconds: Option<f64>) -> Option<DrainOutlook> {
    let known = |value: &f64| value.is_finite() && *value >= 0.0;
    let (requests, mean) = (Some(requests).filter(known)?, response_seconds.filter(known)?);
    if requests < 0.5 {
        return Some(DrainOutlook { median_seconds: 0.0, p95_seconds: 0.0 });
    }
    // 1 - q^(1/n), without loss for large n.
    let quantile = |q: f64| -mean * (-(q.ln() / requests.max(1.0)).exp_m1()).ln();
    Some(DrainOutlook { median_seconds: quantile(0.5), p95_seconds: quantile(0.95) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_request_ends_as_an_exponential_does_and_many_take_longer() {
        let one = drain_outlook(1.0, Some(10.0)).unwrap();
        assert!((one.median_seconds - 10.0 * std::f64::consts::LN_2).abs() < 1e-9, "{one:?}");
        assert!((one.p95_seconds - 29.957).abs() < 0.01, "{one:?}");
        let many = drain_outlook(50.0, Some(10.0)).unwrap();
        assert!((many.median_seconds - 42.8).abs() < 0.1, "{many:?}");
        assert_eq!(drain_outlook(0.0, Some(10.0)).unwrap().p95_seconds, 0.0);
        assert_eq!(drain_outlook(3.0, None), None);
    }

    proptest! {
        #[test]
        fn an_outlook_can_always_be_shown(requests in any::<f64>(), mean in prop::option::of(any::<f64>())) {
            if let Some(outlook) = drain_outlook(requests, mean) {
                prop_assert!(outlook.median_seconds >= 0.0 && outlook.median_seconds <= outlook.p95_seconds);
            }
        }
    }
}
