use serde::{Deserialize, Serialize};

/// A number in two bytes: the range of an `f32`, and two digits, which is enough for what is only counted. NaN stays NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Brief(u16);

impl Brief {
    pub(crate) fn value(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl From<f32> for Brief {
    /// To the nearest; what is too large for it becomes the largest.
    fn from(value: f32) -> Self {
        let bits = value.clamp(-f32::MAX, f32::MAX).to_bits();
        let (above, below) = ((bits.saturating_add(0x8000) >> 16) as u16, (bits >> 16) as u16);
        Self(if f32::from_bits(u32::from(above) << 16).is_finite() { above } else { below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_two_digits_of_any_number() {
        for value in [0.0, 1.0, -3.25, 0.007_77, -1e12, 1e-30, f32::MAX, -f32::MAX] {
            let brief = Brief::from(value).value();
            assert!((brief - value).abs() <= 0.004 * value.abs(), "{brief} for {value}");
        }
        assert!(Brief::from(f32::INFINITY).value() > 3e38);
        assert!(Brief::from(f32::NAN).value().is_nan());
    }
}
