//! The intensity window: the range of real-world values that the networks see as [-1, 1] and that 16 bits are spent on.

/// A closed range of real-world values (Hounsfield units for CT), `low < high`.
///
/// Networks see `low` as -1 and `high` as 1; outputs are written as unsigned 16-bit values with 0 at `low` and 65,535 at `high`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Window {
    /// Value that maps to -1.
    pub low: f32,
    /// Value that maps to +1.
    pub high: f32,
}

impl Window {
    /// The lung window that the shipped models are trained on, in HU.
    pub const LUNG_CT: Window = Window { low: -1000.0, high: 400.0 };

    /// The window of models of radiographs: P-values of 16 bit (PS3.14), which come from an image's own window.
    pub const RADIOGRAPH: Window = Window { low: 0.0, high: 65_535.0 };

    /// `value` in [-1, 1], clamped.
    pub fn normalise(&self, value: f32) -> f32 {
        ((value - self.low) / (self.high - self.low) * 2.0 - 1.0).clamp(-1.0, 1.0)
    }

    /// The real-world value of `normalised`; the inverse of [`normalise`](Self::normalise) inside the window.
    pub fn denormalise(&self, normalised: f32) -> f32 {
        self.low + (normalised + 1.0) * 0.5 * (self.high - self.low)
    }

    /// `normalised` as a 16-bit stored value, clamped and rounded half away from zero.
    pub fn to_stored(&self, normalised: f32) -> u16 {
        let value = (normalised.clamp(-1.0, 1.0) + 1.0) * 32_767.5;
        // In f64 the sum is exact; `round` is a call for each pixel where the processor is not known to have it.
        (f64::from(value) + 0.5) as u16
    }

    /// The normalised value of a stored one; `to_stored(from_stored(v)) == v` for every `v`.
    pub fn from_stored(&self, stored: u16) -> f32 {
        f32::from(stored) / 32_767.5 - 1.0
    }

    /// DICOM Rescale Slope and Intercept (PS3.3 C.7.6.1.1.2 and C.11.1) of 16-bit stored values over this window.
    pub fn rescale(&self) -> (f64, f64) {
        ((f64::from(self.high) - f64::from(self.low)) / 65_535.0, f64::from(self.low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_values_round_trip_for_all_65536() {
        for stored in 0..=u16::MAX {
            assert_eq!(Window::LUNG_CT.to_stored(Window::LUNG_CT.from_stored(stored)), stored);
        }
    }

    #[test]
    fn hounsfield_values_map_to_the_unit_range_and_back() {
        let window = Window::LUNG_CT;
        assert_eq!(window.normalise(-1000.0), -1.0);
        assert_eq!(window.normalise(400.0), 1.0);
        assert_eq!(window.normalise(3000.0), 1.0);
        assert!((window.denormalise(window.normalise(37.0)) - 37.0).abs() < 1e-3);
    }
}
