//! Random numbers: ChaCha, seeded from the boot-info, and seeded anew when this VM has become another.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use weir_abi::BootInfo;

/// A generator that belongs to one generation of the VM: another one needs another generator.
pub struct Random(ChaCha12Rng);

impl Random {
    /// A generator seeded from `info`.
    pub fn new(info: &BootInfo) -> Self {
        Self(ChaCha12Rng::from_seed(seed(&info.entropy)))
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
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
    fn each_byte_of_the_entropy_counts() {
        let draw = |entropy: [u8; 64]| {
            let mut bytes = [0; 16];
            Random::new(&BootInfo { entropy, ..BootInfo::new() }).fill(&mut bytes);
            bytes
        };
        let entropy: [u8; 64] = core::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(draw(entropy), draw(entropy));
        for at in 0..64 {
            let mut other = entropy;
            other[at] ^= 1;
            assert_ne!(draw(other), draw(entropy), "byte {at}");
        }
    }
}
