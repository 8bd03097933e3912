//! Kill -9 at any moment and start again: the request completes, no image twice, none missing, every byte as if nothing
//! had happened.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::Bench;

const REQUEST: &str = "count = 5\nseed = 7\nchunk = 1";
const KILLS: u32 = 20;

#[test]
fn a_request_survives_twenty_kills() {
    let undisturbed = Bench::new();
    let id = undisturbed.submit(REQUEST);
    let began = Instant::now();
    undisturbed.run(&["watch", &id]).expect(0);
    let usual = began.elapsed();
    let expected = undisturbed.delivery(&id, "out");
    assert_eq!(expected.indices(), [0, 1, 2, 3, 4], "{:?}", expected.manifest.failures);

    let mut random = ChaCha8Rng::seed_from_u64(20);
    let (mut kills, mut rounds) = (0, 0);
    while kills < KILLS {
        let bench = Bench::new();
        assert_eq!(bench.submit(REQUEST), id, "the same request has the same id everywhere");
        rounds += 1;
        loop {
            let mut child = bench.start(&["watch", &id]);
            // A little less than an image takes, so that there is progress between kills, and more than one kill an image.
            sleep(usual.mul_f64(random.random_range(0.0..0.3)));
            let ended = child.try_wait().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            match ended {
                Some(status) => {
                    assert!(status.success(), "{status}");
                    break;
                }
                None => kills += 1,
            }
            if kills >= KILLS + rounds {
                break;
            }
        }
        bench.run(&["watch", &id]).expect(0);
        bench.delivery(&id, "out").equals(&expected, &format!("after {kills} kills"));
        assert!(bench.run(&["dead-letters", "list"]).expect(0).is_empty());
    }
    assert!(kills >= KILLS && usual > Duration::ZERO);
}
