//! What becomes of a datagram on its way.
use rand::RngExt;
use rand::rngs::StdRng;
use std::ops::Range;
use std::time::Duration;

/// What the network does to a datagram; between any two nodes there is one hop.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Datagrams lost, percent.
    pub loss_percent: u32,
    /// Datagrams that arrive twice, percent.
    pub duplicate_percent: u32,
    /// How long a datagram is under way, microseconds; those that take longer are overtaken.
    pub delay_micros: Range<u64>,
    /// Datagrams that take up to [`STRAGGLING`] longer, percent.
    pub straggler_percent: u32,
}

/// How much longer a straggler takes at most.
const STRAGGLING: Duration = Duration::from_secs(3);

impl Weather {
    /// Nothing is lost; 10 to 12 ms one way.
    pub const FAIR: Self = Self {
        loss_percent: 0,
        duplicate_percent: 0,
        delay_micros: 10_000..12_000,
        straggler_percent: 0,
    };

    /// 30 % are lost, 5 % come twice, 5 to 300 ms one way, and every hundredth comes seconds too late.
    pub const FOUL: Self = Self {
        loss_percent: 30,
        duplicate_percent: 5,
        delay_micros: 5_000..300_000,
        straggler_percent: 1,
    };

    /// How long each copy of a datagram takes; none if it is lost.
    pub(super) fn copies(&self, rng: &mut StdRng) -> impl Iterator<Item = Duration> + use<> {
        let copies = 1 + usize::from(chance(rng, self.duplicate_percent));
        let mut delays = [None; 2];
        for delay in delays.iter_mut().take(copies) {
            if chance(rng, self.loss_percent) {
                continue;
            }
            let mut micros = rng.random_range(self.delay_micros.clone());
            if chance(rng, self.straggler_percent) {
                micros += rng.random_range(0..STRAGGLING.as_micros() as u64);
            }
            *delay = Some(Duration::from_micros(micros));
        }
        delays.into_iter().flatten()
    }
}

fn chance(rng: &mut StdRng, percent: u32) -> bool {
    percent > 0 && rng.random_range(0..100) < percent
}
