//! `embedgate doctor cuda`: says whether a card can be used, and how fast its products are.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    iter,
};

use anyhow::Context;
use embedgate_cuda::{Device, Forms, Speed};
use embedgate_tools::table::Table;

use super::Failure;
use crate::{
    args::doctor::CudaArgs,
    model::engine::cuda::{STEP, shapes},
};

pub(super) fn run(args: &CudaArgs) -> Result<(), Failure> {
    let number = args.device;
    let device = Device::open(args.library.as_deref(), number)
        .with_context(|| format!("cuda:{number} cannot be used"))?;
    let (major, minor) = device.capability;
    let driver = device.driver_version;
    say(&format!(
        "cuda:{number} is {}: compute capability {major}.{minor}, {} MiB, {} multiprocessors, a driver for CUDA {}.{}\n",
        device.name,
        device.memory >> 20,
        device.multiprocessors,
        driver / 1000,
        driver % 1000 / 10
    ))?;
    let findings = embedgate_cuda::examine(&device, Forms::All).context("the card had a fault")?;
    let mut right = BTreeMap::new();
    for finding in &findings {
        match &finding.problem {
            None => *right.entry(finding.form).or_insert(0) += 1,
            Some(problem) => say(&format!(
                "FAIL  {} by {}: {problem}\n",
                finding.kernel, finding.form
            ))?,
        }
    }
    for (form, n) in right {
        say(&format!("ok    {n} kernels by {form} give right results\n"))?;
    }
    let rows = usize::try_from(args.rows).unwrap_or(1);
    let width = usize::try_from(args.width_steps).unwrap_or(1) * STEP;
    let shapes = shapes(width, 4 * width);
    let speeds = embedgate_cuda::product_speeds(&device, rows, &shapes);
    say(&table(
        rows,
        shapes,
        &speeds.context("products cannot be timed")?,
    ))?;
    if findings.iter().any(|finding| finding.problem.is_some()) {
        return Err(anyhow::anyhow!("what is marked FAIL is not used on this card").into());
    }
    Ok(())
}

/// A line a format and tile, a column a shape.
fn table(rows: usize, shapes: [[usize; 2]; 4], speeds: &[Speed]) -> String {
    let mut lines: BTreeMap<(String, [usize; 3]), Vec<f64>> = BTreeMap::new();
    for speed in speeds {
        let line = lines.entry((speed.format.to_string(), speed.tile));
        line.or_default().push(speed.teraflops());
    }
    let shapes = shapes.map(|[columns, terms]| format!("{columns}x{terms}"));
    let mut table = Table::new(iter::once("tiles".to_owned()).chain(shapes));
    for ((format, [tall, wide, deep]), teraflops) in lines {
        let tile = format!("{format} {tall}x{wide}x{deep}");
        let numbers = teraflops.iter().map(|t| format!("{t:.1}"));
        table.row(iter::once(tile).chain(numbers));
    }
    format!("TFLOP/s of products of {rows} rows\n{table}")
}

fn say(text: &str) -> anyhow::Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}
