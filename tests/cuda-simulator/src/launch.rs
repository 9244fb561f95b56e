//! Runs a kernel: block after block, and within a block the warps in random order from barrier to barrier.

use crate::{
    memory::Memory,
    ptx::Kernel,
    warp::{LANES, Rest, Surroundings, Warp},
};

/// The size of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Blocks on each axis.
    pub blocks: [u32; 3],
    /// Bytes of shared memory of a block.
    pub shared: usize,
}

/// Shared memory that was not written holds no numbers.
const POISON: u8 = 0xff;

/// Runs a kernel. Arguments are bits, those that are missing zero. The same seed gives the same order.
///
/// # Errors
/// The fault of an instruction, with its text and its block.
pub fn launch(
    kernel: &Kernel,
    grid: Grid,
    arguments: &[u64],
    memory: &mut Memory,
    seed: u64,
) -> Result<(), String> {
    let mut arguments = arguments.to_vec();
    arguments.resize(kernel.parameters.len(), 0);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let [nx, ny, nz] = grid.blocks;
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                let block = [x, y, z];
                run_block(kernel, grid.shared, &arguments, memory, block, &mut random)
                    .map_err(|problem| format!("{} in block {block:?}: {problem}", kernel.name))?;
            }
        }
    }
    Ok(())
}

fn run_block(
    kernel: &Kernel,
    shared: usize,
    arguments: &[u64],
    memory: &mut Memory,
    block: [u32; 3],
    random: &mut Random,
) -> Result<(), String> {
    let mut shared = vec![POISON; shared];
    let mut around = Surroundings {
        memory,
        shared: &mut shared,
    };
    let n_warps = kernel.threads as usize / LANES;
    let warp = |number| Warp::new(kernel, arguments, number, block);
    let mut running: Vec<Warp<'_>> = (0..n_warps).map(warp).collect();
    while !running.is_empty() {
        random.shuffle(&mut running);
        let n = running.len();
        let mut resting = Vec::with_capacity(n);
        for mut warp in running {
            match warp.run(&mut around)? {
                Rest::Barrier => resting.push(warp),
                Rest::End => {}
            }
        }
        if !resting.is_empty() && resting.len() < n {
            return Err("some warps wait at a barrier, and others have ended".into());
        }
        running = resting;
    }
    Ok(())
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        for i in (1..all.len()).rev() {
            all.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}
