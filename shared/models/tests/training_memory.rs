//! The memory of a training step, measured and held against the arithmetic. A test alone in its process: the peak is the process's.

#![cfg(all(feature = "training", target_os = "linux"))]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use hiresmed_imaging::Plane;
use hiresmed_models::{
    training::{Dataset, Learner as _, Sample},
    vqgan::{Config, Crops, Learner, LossWeights, Memory, Training},
};

/// What a step may need beyond what is counted: workspaces of the convolutions, and small tensors. It was 26 and 35 MB.
const UNCOUNTED: usize = 60_000_000;

/// From this size on glibc gives memory back as soon as it is freed (mallopt(3)): what is kept for later would be measured, too, and
/// differs from run to run by more than a step's error.
const GIVEN_BACK: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "65536");

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
    // glibc reads it before this program begins: in a process of its own.
    if std::env::var(GIVEN_BACK.0).as_deref() != Ok(GIVEN_BACK.1) {
        let mut own = std::process::Command::new(std::env::current_exe().unwrap());
        let own = own.args(["--exact", "a_step_needs_what_is_counted"]).env(GIVEN_BACK.0, GIVEN_BACK.1);
        let output = own.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    tch::set_num_threads(1);
    // What libtorch itself occupies comes with its first step.
    learner("tiny", Crops { from_step: 0, size: 32, batch: 1 }, false).0.step().unwrap();
    let (before, code) = (status("VmRSS"), status("RssFile"));
    let crops = Crops { from_step: 0, size: 256, batch: 4 };
    // The smaller one first: what it leaves behind with the allocator is used again.
    let [again, kept] = [true, false].map(|checkpointing| {
        let (mut learner, memory) = learner("ct256", crops, checkpointing);
        learner.step().unwrap();
        // Code that is mapped when an operation is first used belongs to no step, and how much of it is differs from run to run.
        let mapped = status("RssFile").saturating_sub(code);
        let (measured, counted) = (status("VmHWM") - before - mapped, memory.at_work());
        println!("activations made again: {checkpointing}; counted {counted}, measured {measured}");
        assert!(measured >= counted && measured <= counted + UNCOUNTED, "counted {counted}, measured {measured}");
        measured
    });
    assert!(again < kept * 4 / 5, "{again} with activations made again, {kept} without");
}
