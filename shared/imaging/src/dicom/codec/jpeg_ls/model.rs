//! What coder and decoder share: parameters, contexts, prediction, and the adaptation of both (ISO/IEC 14495-1 annex A).

/// Run lengths in bits by run index (A.2.1).
pub(super) const RUN_BITS: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Coding parameters of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameters {
    pub maximum: i32,
    pub near: i32,
    pub thresholds: [i32; 3],
    pub reset: i32,
    pub range: i32,
    pub error_bits: u32,
    pub limit: u32,
}

impl Parameters {
    /// The defaults of C.2.4.1.1 for samples up to `maximum` with an error of at most `near`.
    pub(super) fn new(maximum: i32, near: i32) -> Self {
        let clamp = |value: i32, least: i32| if value > maximum || value < least { least } else { value };
        let [b1, b2, b3] = if maximum >= 128 {
            let factor = (maximum.min(4095) + 128) / 256;
            [factor + 2 + 3 * near, factor * 4 + 3 + 5 * near, factor * 17 + 4 + 7 * near]
        } else {
            let factor = 256 / (maximum + 1);
            [(3 / factor + 3 * near).max(2), (7 / factor + 5 * near).max(3), (21 / factor + 7 * near).max(4)]
        };
        let t1 = clamp(b1, near + 1);
        let t2 = clamp(b2, t1);
        let t3 = clamp(b3, t2);
        let range = (maximum + 2 * near) / (2 * near + 1) + 1;
        let bits = |count: i32| i32::BITS - (count - 1).max(0).leading_zeros();
        let sample_bits = bits(maximum + 1).max(2);
        Self {
            maximum,
            near,
            thresholds: [t1, t2, t3],
            reset: 64,
            range,
            error_bits: bits(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
        }
    }

    /// Whether no error is allowed and prediction errors are counted modulo a power of two, as with all defaults.
    pub(super) fn is_plain(&self) -> bool {
        self.near == 0 && self.range & (self.range - 1) == 0
    }

    /// The least prediction error that a coder writes, of `range` in a row (A.4.5).
    pub(super) fn least_error(&self) -> i32 {
        -(self.range / 2)
    }

    /// The sample that `error` makes of `prediction`, wrapped and clamped (A.4.4, A.4.5).
    #[inline(always)]
    pub(super) fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let step = 2 * self.near + 1;
        let value = prediction + error * step;
        let value = match value {
            value if value < -self.near => value + self.range * step,
            value if value > self.maximum + self.near => value - self.range * step,
            value => value,
        };
        value.clamp(0, self.maximum)
    }
}

/// The region -4 to 4 of a gradient by `near` and the thresholds (A.3.3).
#[inline(always)]
pub(super) fn region(gradient: i32, near: i32, [t1, t2, t3]: [i32; 3]) -> i32 {
    let size = gradient.abs();
    let region = i32::from(size > near) + i32::from(size >= t1) + i32::from(size >= t2) + i32::from(size >= t3);
    if gradient < 0 { -region } else { region }
}

/// The regions of gradients, looked up: in noise no branch could be predicted.
#[derive(Debug, Clone)]
pub(super) struct Regions {
    /// From the gradient `-maximum` on.
    of: Vec<i8>,
    maximum: i32,
}

impl Regions {
    pub(super) fn new(parameters: &Parameters) -> Self {
        let &Parameters { maximum, near, thresholds, .. } = parameters;
        let of = (-maximum..=maximum).map(|gradient| region(gradient, near, thresholds) as i8);
        Self { of: of.collect(), maximum }
    }

    /// Of a gradient of samples, which are at most the maximum apart.
    #[inline(always)]
    pub(super) fn of(&self, gradient: i32) -> i32 {
        i32::from(self.of[(gradient + self.maximum) as usize])
    }
}

/// A context by the regions of its gradients `d - b`, `b - c` and `c - a`: below 0 where it is another one's mirror image, and 0 where
/// the neighbours are flat, which means run mode (A.3.4).
#[inline(always)]
pub(super) fn context(right: i32, left: i32, down: i32) -> i32 {
    (right * 9 + left) * 9 + down
}

/// `value`, or `-value` where `sign` is -1 and not 0.
#[inline(always)]
pub(super) fn signed(value: i32, sign: i32) -> i32 {
    (value ^ sign) - sign
}

/// Reconstructed samples around the current one: left, above, above left, above right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neighbours {
    pub a: i32,
    pub b: i32,
    pub c: i32,
    pub d: i32,
}

impl Neighbours {
    /// The median edge detector (A.4.1).
    #[inline(always)]
    pub(super) fn predict(self) -> i32 {
        (self.a + self.b - self.c).clamp(self.a.min(self.b), self.a.max(self.b))
    }
}

/// Statistics of one regular context (A.2.1), 16 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub a: i32,
    pub b: i32,
    pub n: i32,
    pub c: i16,
    /// The Golomb parameter of the next sample, which waits for it (A.5.1).
    pub k: u16,
}

impl Context {
    /// -1 where error signs are mapped the other way round, else 0 (A.5.2).
    #[inline(always)]
    pub(super) fn inversion(&self, near: i32) -> i32 {
        if near == 0 && self.k == 0 { -i32::from(2 * self.b <= -self.n) } else { 0 }
    }

    /// A.6.
    #[inline(always)]
    pub(super) fn update(&mut self, error: i32, near: i32, reset: i32) {
        let (mut a, mut b, mut n) = (self.a + error.abs(), self.b + error * (2 * near + 1), self.n);
        if n == reset {
            (a, b, n) = (a >> 1, b >> 1, n >> 1);
        }
        n += 1;
        // Chosen without branches: which way it goes cannot be predicted.
        let step = i32::from(b > 0) - i32::from(b <= -n);
        let b = (b - step * n).max(1 - n).min(0);
        let c = (i32::from(self.c) + step).clamp(-128, 127) as i16;
        *self = Self { a, b, n, c, k: golomb_parameter(n, a) as u16 };
    }
}

/// Statistics of samples that end a run, `kind` 1 where the neighbours left and above agree (A.7.2).
#[derive(Debug, Clone)]
pub(super) struct RunContext {
    pub kind: i32,
    pub a: i32,
    pub n: i32,
    pub negative: i32,
}

impl RunContext {
    pub(super) fn golomb(&self) -> u32 {
        golomb_parameter(self.n, if self.kind == 1 { self.a + (self.n >> 1) } else { self.a })
    }

    /// The mapped error as it is coded.
    pub(super) fn map(&self, error: i32, k: u32) -> i32 {
        let often_negative = 2 * self.negative >= self.n;
        let flip = (error > 0 && k == 0 && !often_negative) || (error < 0 && (k != 0 || often_negative));
        2 * error.abs() - self.kind - i32::from(flip)
    }

    /// The inverse of [`map`](Self::map).
    pub(super) fn unmap(&self, mapped: i32, k: u32) -> i32 {
        let sum = mapped + self.kind;
        let odd = sum & 1;
        let size = (sum + odd) / 2;
        let often_negative = k != 0 || 2 * self.negative >= self.n;
        if often_negative == (odd == 1) { -size } else { size }
    }

    pub(super) fn update(&mut self, error: i32, mapped: i32, parameters: &Parameters) {
        self.negative += i32::from(error < 0);
        self.a += (mapped + 1 - self.kind) >> 1;
        if self.n == parameters.reset {
            self.a >>= 1;
            self.n >>= 1;
            self.negative >>= 1;
        }
        self.n += 1;
    }
}

/// The least `k`, 24 at most, with `n << k` at least `a`; `n` is at least 1, `a` at least 0.
#[inline(always)]
fn golomb_parameter(n: i32, a: i32) -> u32 {
    // Shifted so far, n has as many bits as a.
    let k = n.leading_zeros().saturating_sub(a.leading_zeros());
    (k + u32::from((n << k) < a)).min(24)
}

/// Contexts without their mirror images; the first one is run mode's, which has its own.
const CONTEXTS: usize = 365;

/// All statistics of a scan.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub contexts: Box<[Context; CONTEXTS]>,
    pub runs: [RunContext; 2],
}

impl Model {
    pub(super) fn new(parameters: &Parameters) -> Self {
        let a = ((parameters.range + 32) / 64).max(2);
        let run = |kind| RunContext { kind, a, n: 1, negative: 0 };
        let context = Context { a, b: 0, n: 1, c: 0, k: golomb_parameter(1, a) as u16 };
        Self { contexts: Box::new([context; CONTEXTS]), runs: [run(0), run(1)] }
    }
}

/// Two lines with a sample of margin on both sides.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub previous: Vec<i32>,
    pub current: Vec<i32>,
    pub run_index: usize,
}

impl Lines {
    pub(super) fn new(width: usize) -> Self {
        Self { previous: vec![0; width + 2], current: vec![0; width + 2], run_index: 0 }
    }

    /// Begins a line: the margins repeat the neighbours as A.2.1 says.
    pub(super) fn advance(&mut self) {
        std::mem::swap(&mut self.previous, &mut self.current);
        let last = self.previous.len() - 2;
        self.previous[last + 1] = self.previous[last];
        self.current[0] = self.previous[1];
    }

    #[inline(always)]
    pub(super) fn neighbours(&self, x: usize) -> Neighbours {
        Neighbours { a: self.current[x], b: self.previous[x + 1], c: self.previous[x], d: self.previous[x + 2] }
    }
}
