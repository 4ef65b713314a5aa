//! Random numbers: ChaCha, seeded from the boot-info, and seeded anew when this VM has become another.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use weir_abi::BootInfo;

/// A generator that belongs to one generation of the VM.
pub struct Random {
    rng: ChaCha12Rng,
    generation: u64,
}

impl Random {
    /// A generator seeded from `info`.
    pub fn new(info: &BootInfo) -> Self {
        Self { rng: ChaCha12Rng::from_seed(seed(&info.entropy)), generation: info.generation }
    }

    /// Fills `bytes`, after a look at whether `info` belongs to another generation.
    pub fn fill(&mut self, info: &BootInfo, bytes: &mut [u8]) {
        if info.generation != self.generation {
            *self = Self::new(info);
        }
        self.rng.fill_bytes(bytes);
    }
}

/// Folds the given entropy into a seed: each half of it alone would do.
fn seed(entropy: &[u8; 64]) -> [u8; 32] {
    core::array::from_fn(|at| entropy[at] ^ entropy[at + 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_generation_draws_other_numbers() {
        let first =
            BootInfo { entropy: core::array::from_fn(|at| u8::try_from(at).unwrap()), ..BootInfo::new() };
        let mut entropy = [0; 64];
        entropy[40] = 9;
        let second = BootInfo { generation: 1, entropy, ..BootInfo::new() };
        let draw = |random: &mut Random, info: &BootInfo| {
            let mut bytes = [0; 16];
            random.fill(info, &mut bytes);
            bytes
        };
        let (mut a, mut b) = (Random::new(&first), Random::new(&first));
        assert_eq!(draw(&mut a, &first), draw(&mut b, &first));
        assert_ne!(draw(&mut a, &second), draw(&mut b, &first));
        assert_eq!(draw(&mut Random::new(&second), &second), draw(&mut Random::new(&second), &second));
    }
}
