//! `embedgate bench`: the command line of the load generator.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use embedgate_config::{Environment, LogLevel};
use embedgate_tools::{
    baseline,
    bench::{self, BenchConfig, Load, RequestConfig, Target, TextsConfig},
};
use tokio::net::TcpListener;

use super::{Failure, runtime, start_log};
use crate::args::bench::BenchArgs;

pub(super) fn run(args: &BenchArgs, environment: &Environment) -> Result<(), Failure> {
    start_log(LogLevel::Info);
    let runtime = runtime()?;
    let mut config = config(args, environment)?;
    // Killed when dropped, which is at the end.
    let mut baseline = None;
    if args.bare {
        let answer = runtime.block_on(bench::one_answer(&config))?;
        let started = BaselineServer::start(&answer, environment)?;
        config.targets.insert(0, started.target.clone());
        baseline = Some(started);
    }
    // A file that cannot be written is said before the load, not after it.
    for file in [&config.json, &config.svg].into_iter().flatten() {
        std::fs::File::create(file)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let report = runtime.block_on(bench::run(&config))?;
    drop(baseline);
    writeln!(io::stdout(), "{report}").context("standard output")?;
    Ok(bench::write(&config, &report)?)
}

fn config(args: &BenchArgs, environment: &Environment) -> anyhow::Result<BenchConfig> {
    let loads: Vec<Load> = if args.rate.is_empty() {
        args.concurrency.iter().map(|n| Load::Closed(*n)).collect()
    } else {
        args.rate.iter().map(|rate| Load::Open(*rate)).collect()
    };
    for load in &loads {
        let is_possible = match load {
            Load::Closed(clients) => (1..=10_000).contains(clients),
            Load::Open(rate) => *rate > 0.0 && *rate <= 1e6,
        };
        if !is_possible {
            bail!(
                "{load}: --concurrency is 1 to 10000 clients, --rate above 0 and at most 1000000 requests/s"
            );
        }
    }
    if !(0.0..=1.0).contains(&args.hit_ratio) {
        bail!("--hit-ratio must be 0 to 1, got {}", args.hit_ratio);
    }
    for (flag, is_nothing) in [
        ("--inputs", args.inputs == 0),
        ("--rounds", args.rounds == 0),
        ("--hot", args.hot == 0),
        ("--duration", args.duration.0.is_zero()),
        ("--timeout", args.timeout.0.is_zero()),
    ] {
        if is_nothing {
            bail!("{flag} must be more than nothing");
        }
    }
    for (i, target) in args.targets.iter().enumerate() {
        if args.targets[..i]
            .iter()
            .any(|other| other.name == target.name)
        {
            bail!(
                "two targets are named {}: name them as NAME=URL",
                target.name
            );
        }
    }
    Ok(BenchConfig {
        targets: args.targets.clone(),
        loads,
        duration: args.duration.0,
        warm_up: args.warm_up.0,
        rounds: args.rounds,
        request: RequestConfig {
            model: args.model.clone(),
            inputs: args.inputs,
            texts: TextsConfig {
                file: args.texts.clone(),
                words: args.words,
                hit_ratio: args.hit_ratio,
                hot: args.hot,
                seed: args.seed,
            },
            encoding: args.encoding.to_string(),
            lane: args.lane,
            key: args
                .key
                .clone()
                .or_else(|| environment.get("EMBEDGATE_KEY").map(str::to_owned)),
            timeout: args.timeout.0,
        },
        background: args.background,
        json: args.json.clone(),
        svg: args.svg.clone(),
    })
}

/// A process of its own that answers with the same bytes.
struct BaselineServer {
    target: Target,
    _process: Killed,
}

/// Ends with the value.
struct Killed(Child);

impl BaselineServer {
    fn start(answer: &[u8], environment: &Environment) -> anyhow::Result<Self> {
        let program = environment.program().context("this program has no file")?;
        let mut process = Command::new(program)
            .arg("bench-bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the bare server cannot be started")?;
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        // From here on it is killed whatever goes wrong.
        let process = Killed(process);
        stdin
            .context("it has no standard input")?
            .write_all(answer)?;
        let mut address = String::new();
        let stdout = stdout.context("it has no standard output")?;
        BufReader::new(stdout).read_line(&mut address)?;
        let target = format!("bare={}", address.trim());
        let target = target.parse().map_err(anyhow::Error::msg)?;
        Ok(Self {
            target,
            _process: process,
        })
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// `embedgate bench-bare`: takes the answer from standard input, prints the address, serves until it is killed.
pub(super) fn run_baseline() -> Result<(), Failure> {
    let mut answer = Vec::new();
    io::stdin()
        .read_to_end(&mut answer)
        .context("standard input")?;
    let served: anyhow::Result<()> = runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut out = io::stdout();
        writeln!(out, "http://{address}")?;
        out.flush()?;
        Ok(baseline::serve(listener, answer).await?)
    });
    Ok(served?)
}
