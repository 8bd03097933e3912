//! The memory of a training step, measured and held against the arithmetic. A test alone in its process: the peak is the process's.

#![cfg(all(feature = "training", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use hiresmed_imaging::Plane;
use hiresmed_models::{
    training::{Dataset, Learner as _, Sample},
    vqgan::{Config, Crops, Learner, LossWeights, Memory, Training},
};

/// What a step may need beyond what is counted: workspaces of the convolutions, and code that libtorch loads when it is first used. It
/// was 0.11 to 0.34 GB at 0.3 to 2.8 GB.
const UNCOUNTED: usize = 450_000_000;

fn learner(preset: &str, crops: Crops, checkpointing: bool) -> (Learner, Memory) {
    let (config, training) = (Config::preset(preset).unwrap(), Training::preset(preset).unwrap());
    let loss = LossWeights { adversarial: 0.8, ..training.loss };
    let training = Training { loss, discriminator_start: Some(0), crops: vec![crops], checkpointing, ..training };
    let memory = Memory::of_step(&config, &training, crops, 0);
    let value = |at: usize| ((at % crops.size) as f32 / 7.0).sin() * ((at / crops.size) as f32 / 11.0).cos();
    let plane = Plane::new(crops.size, crops.size, (0..crops.size * crops.size).map(value).collect());
    let samples = vec![Sample { name: "waves".into(), folder: 0, plane }];
    (Learner::new(config, training, Dataset::new(samples, String::new()), 1, None).unwrap(), memory)
}

/// A line of `/proc/self/status`, bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
fn a_step_needs_what_is_counted() {
    tch::set_num_threads(1);
    // What libtorch itself occupies comes with its first step.
    learner("tiny", Crops { from_step: 0, size: 32, batch: 1 }, false).0.step().unwrap();
    let before = status("VmRSS");
    let crops = Crops { from_step: 0, size: 256, batch: 4 };
    // The smaller one first: what it leaves behind with the allocator is used again.
    let [again, kept] = [true, false].map(|checkpointing| {
        let (mut learner, memory) = learner("ct256", crops, checkpointing);
        learner.step().unwrap();
        let (measured, counted) = (status("VmHWM") - before, memory.at_work());
        println!("activations made again: {checkpointing}; counted {counted}, measured {measured}");
        assert!(measured >= counted && measured <= counted + UNCOUNTED, "counted {counted}, measured {measured}");
        measured
    });
    assert!(again < kept * 4 / 5, "{again} with activations made again, {kept} without");
}
