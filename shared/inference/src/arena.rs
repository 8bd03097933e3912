//! One arena of host memory for all sessions of the process.
//!
//! Left alone, each session keeps an arena of its own, which never shrinks and grows by powers of two: encoder, decoder and
//! U-Net then hold the sum of their peaks, though a lane runs one at a time. In the environment's arena they take turns, and it
//! grows by what is asked for: 344 MB instead of 622 for two lanes over the shipped networks at 512 x 512, at the same speed.

use std::ptr;

use ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
};

/// The session option that makes a session use the environment's allocators.
pub(crate) const OPTION: (&str, &str) = ("session.use_env_allocators", "1");

/// The option of a run after which the arena gives back to the system what nobody uses just now.
pub(crate) const GIVE_BACK: (&str, &str) = ("memory.enable_memory_arena_shrinkage", "cpu:0");

/// `kSameAsRequested` of ONNX Runtime's arenas.
const SAME_AS_REQUESTED: i32 = 1;
/// "The runtime's default" for an arena's sizes.
const DEFAULT: i32 = -1;

/// Registers the arena, of at most `bytes` where that is given. Called once, before any session is opened.
#[allow(unsafe_code)]
pub(crate) fn register(environment: &Environment, bytes: Option<usize>) -> ort::Result<()> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let api = ort::api();
    let mut settings = ptr::null_mut();
    // SAFETY: ONNX Runtime is loaded, since an environment exists; `settings` is written by the first call and released by the
    // last; a size of 0 is "the runtime's default", which is none; environment and memory description outlive the call between them, which copies what it keeps.
    unsafe {
        ort::Error::result_from_status((api.CreateArenaCfg)(
            bytes.unwrap_or(0),
            SAME_AS_REQUESTED,
            DEFAULT,
            DEFAULT,
            &mut settings,
        ))?;
        let status = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), settings);
        (api.ReleaseArenaCfg)(settings);
        ort::Error::result_from_status(status)
    }
}
