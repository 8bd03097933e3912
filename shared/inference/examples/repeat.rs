//! Whether graphs give the same bytes again on a device, how far they are from the CPU's, and how long their runs take: a line of JSON a
//! graph, `{"graph", "provider", "runs", "differing", "largest_difference_between_runs", "largest_difference_from_cpu", "median_ms",
//! "runs_per_s"}`. `differing` counts runs whose outputs are not the first one's, those of LANES threads at a time included; `runs_per_s`
//! is what the threads reach together.
//!
//! `cargo run --release -p hiresmed-inference --example repeat -- DEVICE SIDE LANES RUNS GRAPH.onnx…`: DEVICE is cpu or cuda. A dimension
//! that is known at run time only is 1 where it is the first, else SIDE; values are between -1 and 1, integers 0.

use std::{path::Path, time::Instant};

use hiresmed_inference::{
    ElementType, Provider, Runtime, Session, SessionOptions, Tensor,
    onnx::{Dim, Port},
};

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Inputs<'a> = Vec<(&'a str, Tensor)>;
type Outputs = Vec<(String, Tensor)>;

fn main() -> Result<(), Fault> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [device, side, lanes, runs, graphs @ ..] = arguments.as_slice() else {
        return Err("usage: repeat DEVICE SIDE LANES RUNS GRAPH.onnx…".into());
    };
    let provider: Provider = device.parse()?;
    let (side, lanes, runs) = (side.parse()?, lanes.parse::<usize>()?.max(1), runs.parse::<usize>()?.max(1));
    let runtime = Runtime::load_for(provider)?;
    for graph in graphs {
        match line(&runtime, provider, side, lanes, runs, Path::new(graph)) {
            Ok(line) => println!("{line}"),
            Err(fault) => println!("{}", serde_json::json!({ "graph": graph, "fault": fault.to_string() })),
        }
    }
    Ok(())
}

fn line(
    runtime: &Runtime,
    provider: Provider,
    side: usize,
    lanes: usize,
    runs: usize,
    graph: &Path,
) -> Result<serde_json::Value, Fault> {
    let bytes = std::fs::read(graph)?;
    let open = |provider, lanes| {
        Session::open(runtime, &bytes, &SessionOptions { threads: 1, lanes, provider, ..SessionOptions::default() })
    };
    let (cpu, session) = (open(Provider::Cpu, 1)?, open(provider, lanes)?);
    let inputs: Inputs<'_> = session
        .inputs()
        .iter()
        .map(|port| Ok((port.name.as_str(), values(port, side)?)))
        .collect::<Result<_, Fault>>()?;
    let exact = cpu.run(&inputs)?;
    let first = session.run(&inputs)?;
    let (mut seconds, mut differing, mut between) = (Vec::new(), 0, 0.0_f32);
    let mut compare = |outputs: &Outputs| {
        let difference = largest(&first, outputs);
        differing += usize::from(*outputs != first);
        between = between.max(difference);
    };
    for _ in 0..runs {
        let started = Instant::now();
        let outputs = session.run(&inputs)?;
        seconds.push(started.elapsed().as_secs_f64());
        compare(&outputs);
    }
    // Another session on the same bytes, as another worker opens it.
    compare(&open(provider, 1)?.run(&inputs)?);
    let repeated = || (0..runs).map(|_| session.run(&inputs)).collect::<Result<Vec<Outputs>, _>>();
    let together = || {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..lanes).map(|_| scope.spawn(repeated)).collect();
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        })
    };
    // Each lane's session chooses its kernels in its first run.
    drop(together());
    let started = Instant::now();
    let together = together();
    let rate = (lanes * runs) as f64 / started.elapsed().as_secs_f64();
    for outputs in together {
        outputs.map_err(|_| "a thread panicked")??.iter().for_each(&mut compare);
    }
    seconds.sort_by(f64::total_cmp);
    Ok(serde_json::json!({
        "graph": graph, "provider": provider.name(), "runs": runs, "differing": differing,
        "largest_difference_between_runs": between, "largest_difference_from_cpu": largest(&exact, &first),
        "median_ms": 1e3 * seconds[seconds.len() / 2], "runs_per_s": rate,
    }))
}

/// What an input is given.
fn values(port: &Port, side: usize) -> Result<Tensor, Fault> {
    let dimensions = port.shape.as_ref().ok_or_else(|| format!("the rank of {} is unknown", port.name))?;
    let size = |(at, dimension): (usize, &Dim)| match dimension {
        Dim::Fixed(size) => usize::try_from(*size).unwrap_or(1),
        Dim::Symbol(_) => [1, side][usize::from(at > 0)],
    };
    let shape: Vec<usize> = dimensions.iter().enumerate().map(size).collect();
    let count: usize = shape.iter().product();
    Ok(match port.element {
        Some(ElementType::F32) => {
            let value = |at: usize| 0.6 * (at as f32 / 7.0).sin() + 0.3 * (at as f32 / 97.0).cos();
            Tensor::f32(shape, (0..count).map(value).collect())?
        }
        Some(ElementType::I64) => Tensor::i64(shape, vec![0; count])?,
        _ => return Err(format!("{} is neither f32 nor i64", port.name).into()),
    })
}

fn largest(a: &Outputs, b: &Outputs) -> f32 {
    let of = |(a, b): (&(String, Tensor), &(String, Tensor))| match (&a.1, &b.1) {
        (Tensor::F32 { data: a, .. }, Tensor::F32 { data: b, .. }) => {
            a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        }
        _ => f32::from(u8::from(a.1 != b.1)),
    };
    a.iter().zip(b).map(of).fold(0.0, f32::max)
}
