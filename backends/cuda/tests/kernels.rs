//! Every kernel against arithmetic in f64, in the very PTX that ships.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

#[path = "support/simulator.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod simulator;

#[test]
fn every_kernel_gives_right_results() {
    let device = simulator::open().unwrap();
    let started = std::time::Instant::now();
    let n = embedgate_cuda::check_kernels(&device).unwrap();
    println!("{n} kernels {:?}", started.elapsed());
}
