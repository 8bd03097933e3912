//! Sessions: a graph made ready to run on a device.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::SessionInputValue;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet, TensorElementType, TensorRef, ValueType};

use crate::arena;
use crate::onnx::{self, Dim, Graph, Port};
use crate::runtime::Runtime;
use crate::tensor::{self, ElementType, Tensor};

/// Why a graph does not open or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ONNX Runtime refuses the graph.
    #[error("ONNX Runtime cannot open the graph: {cause}; it may be damaged or use operators that this runtime lacks")]
    Open {
        /// What the runtime said.
        cause: String,
    },
    /// The execution provider is not to be had.
    #[error(
        "{provider} cannot be used: {cause}; install what it names where the loader finds it (CUDA 13, cuDNN 9, the driver), or use the CPU"
    )]
    Provider {
        /// The provider asked for.
        provider: &'static str,
        /// What the runtime said.
        cause: String,
    },
    /// The inputs are not those that the graph declares.
    #[error("the inputs do not fit the graph:\n  {}", .faults.join("\n  "))]
    Inputs {
        /// Every fault.
        faults: Vec<String>,
    },
    /// The run itself failed.
    #[error("ONNX Runtime failed to run the graph: {cause}")]
    Run {
        /// What the runtime said.
        cause: String,
    },
    /// An output's element type is neither f32 nor i64.
    #[error("output {name:?} is {found}; only f32 and i64 outputs can be taken")]
    OutputType {
        /// The output.
        name: String,
        /// Its type.
        found: String,
    },
    /// A tensor is not what was expected of it.
    #[error(transparent)]
    Tensor(#[from] tensor::Error),
}

/// Words of ONNX Runtime, of its arenas and of CUDA's libraries for memory that is not there. It has no code of its own for it.
const SHORT_OF_MEMORY: [&str; 6] = [
    "Failed to allocate memory",
    "Available memory of",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "ALLOC_FAILED",
];

/// Whether what went wrong is that memory was short: with less going on at the same time it may go well. `text` is the error's, or
/// that of one that quotes it.
pub fn is_short_of_memory(text: &str) -> bool {
    SHORT_OF_MEMORY.iter().any(|words| text.contains(words))
}

/// Where a session runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Provider {
    /// The host's processor.
    #[default]
    Cpu,
    /// An NVIDIA device, by its CUDA ordinal.
    Cuda {
        /// Ordinal.
        device: i32,
    },
}

impl Provider {
    /// ONNX Runtime's name of the execution provider, as it stands in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda { .. } => "CUDAExecutionProvider",
        }
    }

    fn memory(self) -> ort::Result<MemoryInfo<'static>> {
        match self {
            Self::Cpu => MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default),
            Self::Cuda { device } => {
                MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)
            }
        }
    }
}

/// What a person types: `cpu`, `cuda` for the first NVIDIA device, `cuda:N` for device N.
impl std::str::FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Ok(0),
            _ => text.strip_prefix("cuda:").unwrap_or_default().parse::<u16>(),
        };
        let device = ordinal.map_err(|_| format!("{text:?} is not a device: write cpu, cuda or cuda:N"))?;
        Ok(Self::Cuda { device: i32::from(device) })
    }
}

/// How a session uses the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads inside an operator; 0 is one for each physical core.
    pub threads: usize,
    /// Runs that may go on at the same time, each on `threads` threads; at least 1. Where whole images wait, two at once on a
    /// thread each take less time than one after the other on two threads.
    pub lanes: usize,
    /// Where to run.
    pub provider: Provider,
    /// Whether host memory is kept between runs in the process's arena, which all such sessions share (faster), or given back
    /// after each run (for a session that is run once).
    pub arena: bool,
}

impl Default for SessionOptions {
    /// One run at a time on all cores of the CPU, with the arena.
    fn default() -> Self {
        Self { threads: 0, lanes: 1, provider: Provider::Cpu, arena: true }
    }
}

thread_local! {
    static TIME_IN_RUNS: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Wall time that this thread has spent inside ONNX Runtime's run calls since it started.
pub fn time_in_runs() -> Duration {
    TIME_IN_RUNS.get()
}

/// Nanoseconds of the processor's threads, and of NVIDIA devices, that went into runs.
static NANOS_OF_THREADS: AtomicU64 = AtomicU64::new(0);
static NANOS_OF_DEVICES: AtomicU64 = AtomicU64::new(0);

/// Time that runs of all sessions have kept what they run on since the process started: on the CPU each thread of a session counts,
/// on CUDA each device.
pub fn time_in_all_runs(provider: Provider) -> Duration {
    let nanos = match provider {
        Provider::Cpu => &NANOS_OF_THREADS,
        Provider::Cuda { .. } => &NANOS_OF_DEVICES,
    };
    Duration::from_nanos(nanos.load(Ordering::Relaxed))
}

/// A tensor that a bound run left where it was told to: on the device of a CUDA session, or in host memory.
#[derive(Debug)]
pub struct DeviceTensor {
    value: DynValue,
}

impl DeviceTensor {
    /// A host tensor as input of a bound run; a session on another device copies it there when it runs.
    pub fn from_host(tensor: Tensor) -> Result<Self, Error> {
        let run = |error: ort::Error| Error::Run { cause: error.to_string() };
        let value = match tensor {
            Tensor::F32 { shape, data } => ort::value::Tensor::from_array((shape, data)).map_err(run)?.into_dyn(),
            Tensor::I64 { shape, data } => ort::value::Tensor::from_array((shape, data)).map_err(run)?.into_dyn(),
        };
        Ok(Self { value })
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> Vec<usize> {
        let shape = self.value.dtype().tensor_shape();
        shape.map(|shape| shape.iter().map(|&size| size.max(0) as usize).collect()).unwrap_or_default()
    }

    /// What a run brought back to host memory.
    ///
    /// # Errors
    /// [`Error::Run`] where it was left on a device: [`Session::run_bound`] is told what comes back.
    pub fn to_host(&self) -> Result<Tensor, Error> {
        to_host("value", &self.value)
    }
}

/// A graph, optimised and ready to run.
///
/// `run` takes `&self`; more runs than the options' lanes wait for each other (ONNX Runtime's own threads share the work of each).
#[derive(Debug)]
pub struct Session {
    /// One for each lane.
    inner: Vec<Mutex<ort::session::Session>>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    provider: Provider,
    threads: usize,
}

impl Session {
    /// Whether `provider` can be used on this machine: what a worker asks before it takes work.
    ///
    /// # Errors
    /// [`Error::Provider`] with what is missing.
    pub fn check_provider(runtime: &Runtime, provider: Provider) -> Result<(), Error> {
        let options = SessionOptions { provider, ..SessionOptions::default() };
        Self::builder(runtime, &options, &ConvAlgorithmSearch::Heuristic)
            .map(drop)
            .map_err(|error| Error::Provider { provider: provider.name(), cause: error.to_string() })
    }

    /// Makes the ONNX model in `bytes` ready to run.
    ///
    /// All graph optimisations are on. Idle threads sleep instead of spinning (spinning costs several times the wall time
    /// where cores are shared), and compute is deterministic, so that the same run gives the same bytes: on CUDA, a
    /// graph with a transposed convolution whose windows overlap uses cuDNN's plainest kernels, which are several times slower.
    pub fn open(runtime: &Runtime, bytes: &[u8], options: &SessionOptions) -> Result<Self, Error> {
        let convolutions = match options.provider {
            Provider::Cpu => ConvAlgorithmSearch::Heuristic,
            Provider::Cuda { .. } => repeatable(bytes),
        };
        let open = || {
            let mut builder = Self::builder(runtime, options, &convolutions)
                .map_err(|error| Error::Provider { provider: options.provider.name(), cause: error.to_string() })?;
            builder.commit_from_memory(bytes).map_err(|error| Error::Open { cause: error.message().to_owned() })
        };
        let first = open()?;
        let (inputs, outputs) = (first.inputs().iter().map(port).collect(), first.outputs().iter().map(port).collect());
        let mut inner = vec![Mutex::new(first)];
        for _ in 1..options.lanes {
            inner.push(Mutex::new(open()?));
        }
        Ok(Self { inputs, outputs, inner, provider: options.provider, threads: options.threads.max(1) })
    }

    /// Gives the host memory that the process's arena keeps between runs back to the system. What several runs at a time have left
    /// there is in pieces, which may be too small for one by itself.
    ///
    /// # Errors
    /// The runtime's.
    pub fn give_back_memory(runtime: &Runtime) -> Result<(), Error> {
        // Only a run gives back: one of next to nothing.
        let mut graph = Graph::new("nothing");
        let x = graph.input("x", ElementType::F32, &[1.into()]);
        let y = graph.add(&x, &x);
        graph.output(&y, "y", ElementType::F32, &[1.into()]);
        let bytes = graph.finish().map_err(|error| Error::Open { cause: error.to_string() })?;
        let session = Self::open(runtime, &bytes, &SessionOptions { threads: 1, ..SessionOptions::default() })?;
        let run = |error: ort::Error| Error::Run { cause: error.message().to_owned() };
        let mut options = ort::session::RunOptions::new().map_err(run)?;
        options.set(arena::GIVE_BACK.0, arena::GIVE_BACK.1).map_err(run)?;
        let input = ort::value::Tensor::from_array(([1_usize], vec![0.0_f32])).map_err(run)?;
        session.lock().run_with_options(ort::inputs!["x" => input], &options).map_err(run)?;
        Ok(())
    }

    /// The inputs that `run` expects.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs that `run` returns.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Where the session runs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Runs the graph on host tensors, by name, and returns every output in host memory, in the graph's order.
    pub fn run(&self, inputs: &[(&str, Tensor)]) -> Result<Vec<(String, Tensor)>, Error> {
        self.check(inputs.iter().map(|(name, tensor)| (*name, tensor.element_type(), tensor.shape().len())))?;
        let run = |error: ort::Error| Error::Run { cause: error.message().to_owned() };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let value = match tensor {
                Tensor::F32 { shape, data } => {
                    TensorRef::from_array_view((shape.as_slice(), data.as_slice())).map_err(run)?.into()
                }
                Tensor::I64 { shape, data } => {
                    TensorRef::from_array_view((shape.as_slice(), data.as_slice())).map_err(run)?.into()
                }
            };
            values.push((name, value));
        }
        let mut session = self.lock();
        let outputs = self.counted(|| session.run(values)).map_err(run)?;
        let names = self.outputs.iter().map(|output| output.name.as_str());
        names.filter_map(|name| outputs.get(name).map(|value| Ok((name.to_owned(), to_host(name, value)?)))).collect()
    }

    /// Runs a graph that has one output and returns it.
    pub fn run_single(&self, inputs: &[(&str, Tensor)]) -> Result<Tensor, Error> {
        let mut outputs = self.run(inputs)?;
        match outputs.pop() {
            Some((_, tensor)) if outputs.is_empty() => Ok(tensor),
            last => {
                let count = outputs.len() + usize::from(last.is_some());
                Err(Error::Run { cause: format!("one output was expected, the graph has {count}") })
            }
        }
    }

    /// Runs the graph with its outputs left on the session's device, in the graph's order, ready to be inputs of the next
    /// session: a chain of sessions on CUDA sends nothing through the host but the outputs named in `host`, which come back.
    pub fn run_bound(
        &self,
        inputs: &[(&str, &DeviceTensor)],
        host: &[&str],
    ) -> Result<Vec<(String, DeviceTensor)>, Error> {
        self.check(inputs.iter().map(|(name, tensor)| {
            let element = tensor.value.dtype().tensor_type().map_or(ElementType::Other(0), element);
            (*name, element, tensor.shape().len())
        }))?;
        let run = |error: ort::Error| Error::Run { cause: error.message().to_owned() };
        let device = self.provider.memory().map_err(run)?;
        let comes_back = Provider::Cpu.memory().map_err(run)?;
        let mut session = self.lock();
        // A binding of its own for each run: a binding that is run again writes over its earlier outputs.
        let mut binding = session.create_binding().map_err(run)?;
        for (name, tensor) in inputs {
            binding.bind_input(*name, &tensor.value).map_err(run)?;
        }
        for output in &self.outputs {
            let memory = if host.contains(&output.name.as_str()) { &comes_back } else { &device };
            binding.bind_output_to_device(output.name.as_str(), memory).map_err(run)?;
        }
        let mut outputs = self.counted(|| session.run_binding(&binding)).map_err(run)?;
        let names = self.outputs.iter().map(|output| output.name.clone());
        Ok(names.filter_map(|name| outputs.remove(&name).map(|value| (name, DeviceTensor { value }))).collect())
    }

    /// Counts the time of one run call.
    fn counted<T>(&self, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = call();
        let elapsed = started.elapsed();
        TIME_IN_RUNS.set(TIME_IN_RUNS.get() + elapsed);
        let (nanos, at_once) = match self.provider {
            Provider::Cpu => (&NANOS_OF_THREADS, self.threads as u128),
            Provider::Cuda { .. } => (&NANOS_OF_DEVICES, 1),
        };
        nanos.fetch_add(u64::try_from(at_once * elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        result
    }

    fn lock(&self) -> MutexGuard<'_, ort::session::Session> {
        // A run that panicked leaves the session usable: ONNX Runtime keeps no state between runs.
        let free = self.inner.iter().find_map(|lane| match lane.try_lock() {
            Ok(session) => Some(session),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        // No more threads than lanes are expected to come here: any lane will do to wait for.
        free.unwrap_or_else(|| self.inner[0].lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn builder(
        runtime: &Runtime,
        options: &SessionOptions,
        convolutions: &ConvAlgorithmSearch,
    ) -> ort::Result<SessionBuilder> {
        let cpu = ort::ep::CPU::default().with_arena_allocator(options.arena).build();
        let providers = match options.provider {
            Provider::Cpu => vec![cpu],
            // No search by time, and no TF32: equal inputs give equal bytes, within the CPU's tolerance.
            Provider::Cuda { device } => vec![
                ort::ep::CUDA::default()
                    .with_device_id(device)
                    .with_conv_algorithm_search(convolutions.clone())
                    .with_tf32(false)
                    .build()
                    .error_on_failure(),
                cpu,
            ],
        };
        let mut builder = ort::session::Session::builder(&runtime.environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_deterministic_compute(true)?
            // Image sizes vary between requests: a memory plan made for one size would be held beside the next.
            .with_memory_pattern(false)?;
        if options.arena {
            builder = builder.with_config_entry(arena::OPTION.0, arena::OPTION.1)?;
        }
        if options.threads > 0 {
            builder = builder.with_intra_threads(options.threads)?;
        }
        Ok(builder.with_execution_providers(providers)?)
    }

    fn check<'a>(&self, given: impl Iterator<Item = (&'a str, ElementType, usize)>) -> Result<(), Error> {
        let mut faults = Vec::new();
        let mut missing: Vec<&Port> = self.inputs.iter().collect();
        for (name, element, rank) in given {
            let Some(port) = self.inputs.iter().find(|port| port.name == name) else {
                faults.push(format!("{name:?} is not an input; the graph has {}", list(&self.inputs)));
                continue;
            };
            missing.retain(|other| other.name != name);
            let fits = port.element.is_none_or(|expected| expected == element)
                && port.shape.as_ref().is_none_or(|shape| shape.len() == rank);
            if !fits {
                faults.push(format!("{name:?} is {element} of rank {rank}; the graph expects {port}"));
            }
        }
        faults.extend(missing.iter().map(|port| format!("{port} is missing")));
        if faults.is_empty() { Ok(()) } else { Err(Error::Inputs { faults }) }
    }
}

/// How cuDNN is to choose the convolutions of a model whose runs are to repeat bit by bit. By its heuristics all that were tried do
/// (H100, cuDNN 9) but those of the one graph whose transposed convolution has overlapping windows; the plainest kernels repeat there too.
fn repeatable(bytes: &[u8]) -> ConvAlgorithmSearch {
    // What cannot be read here, ONNX Runtime judges.
    let overlaps = onnx::has_overlapping_windows(bytes).unwrap_or(true);
    if overlaps { ConvAlgorithmSearch::Default } else { ConvAlgorithmSearch::Heuristic }
}

fn list(ports: &[Port]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn to_host(name: &str, value: &DynValue) -> Result<Tensor, Error> {
    let run = |error: ort::Error| Error::Run { cause: error.message().to_owned() };
    let sizes = |shape: &ort::value::Shape| shape.iter().map(|&size| size.max(0) as usize).collect::<Vec<_>>();
    match value.dtype().tensor_type() {
        Some(TensorElementType::Float32) => {
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(run)?;
            Ok(Tensor::f32(sizes(shape), data.to_vec())?)
        }
        Some(TensorElementType::Int64) => {
            let (shape, data) = value.try_extract_tensor::<i64>().map_err(run)?;
            Ok(Tensor::i64(sizes(shape), data.to_vec())?)
        }
        other => {
            let found = other.map_or_else(|| "not a tensor".to_owned(), |kind| element(kind).to_string());
            Err(Error::OutputType { name: name.to_owned(), found })
        }
    }
}

fn element(kind: TensorElementType) -> ElementType {
    match kind {
        TensorElementType::Float32 => ElementType::F32,
        TensorElementType::Uint8 => ElementType::U8,
        TensorElementType::Int32 => ElementType::I32,
        TensorElementType::Int64 => ElementType::I64,
        TensorElementType::Bool => ElementType::Bool,
        TensorElementType::Float16 => ElementType::F16,
        TensorElementType::Float64 => ElementType::F64,
        _ => ElementType::Other(0),
    }
}

fn port(outlet: &Outlet) -> Port {
    let (element, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let symbols = dimension_symbols.iter().map(String::as_str).chain(std::iter::repeat(""));
            let dims = shape.iter().zip(symbols).map(|(&size, symbol)| match (size, symbol) {
                (0.., _) => Dim::Fixed(size),
                (_, "") => Dim::Symbol("?".into()),
                (_, symbol) => Dim::Symbol(symbol.to_owned()),
            });
            (Some(element(*ty)), Some(dims.collect()))
        }
        _ => (None, None),
    };
    Port { name: outlet.name().to_owned(), element, shape }
}

#[cfg(test)]
mod tests;
