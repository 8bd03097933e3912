//! `hiresmed study score`: readings to rates, agreement and exact tests.

use std::fs;

use serde_json::Value;

use crate::harness::Bench;

/// The paper's table 3 as readings of the same 200 images by two readers.
fn table_3() -> String {
    let mut text = String::from("reader,image,truth,answer\n");
    for (reader, real_called_real, synthetic_called_real) in [("senior", 85, 55), ("intermediate", 65, 55)] {
        for (truth, called_real) in [("real", real_called_real), ("synthetic", synthetic_called_real)] {
            for image in 0..100 {
                let answer = if image < called_real { "real" } else { "synthetic" };
                text.push_str(&format!("{reader},{truth}-{image},{truth},{answer}\n"));
            }
        }
    }
    text
}

#[test]
fn the_papers_readers_are_scored_from_their_counts() {
    let bench = Bench::new();
    let path = bench.path("readings.csv");
    fs::write(&path, table_3()).unwrap();
    let study: Value =
        serde_json::from_str(bench.run(&["study", "score", path.to_str().unwrap(), "--json"]).expect(0)).unwrap();
    let readers = &study["readers"];
    let near = |value: &Value, expected: f64| {
        assert!((value.as_f64().unwrap() - expected).abs() <= 1e-9 * expected.abs(), "{value}, expected {expected}");
    };
    assert_eq!((&readers[0]["reader"], &readers[0]["n"]), (&"senior".into(), &200.into()));
    let counts = ["tp", "fn", "fp", "tn"].map(|key| readers[1][key].as_u64().unwrap());
    assert_eq!(counts, [65, 35, 55, 45]);
    for (key, senior, intermediate) in [
        ("sensitivity", 0.85, 0.65),
        ("specificity", 0.45, 0.45),
        ("accuracy", 0.65, 0.55),
        ("kappa_truth", 0.3, 0.1),
        ("p_accuracy_binomial", 2.6528755595268727e-05, 0.17896403953325155),
        ("p_mcnemar", 1.652519847797991e-06, 0.04459752462791592),
    ] {
        near(&readers[0][key], senior);
        near(&readers[1][key], intermediate);
    }
    // 20 real images that only the senior reader got right; the same answers on all synthetic ones.
    let between = &study["between"][0];
    assert_eq!((&between["a"], &between["b"]), (&"senior".into(), &"intermediate".into()));
    near(&between["p_mcnemar"], 2f64.powi(-19));
    // Agreement 180 of 200; 140 and 120 called real.
    near(&between["kappa"], (0.9 - (0.7 * 0.6 + 0.3 * 0.4)) / (1.0 - (0.7 * 0.6 + 0.3 * 0.4)));
    assert!(
        bench.run(&["study", "score", path.to_str().unwrap()]).expect(0).contains("between senior and intermediate")
    );
}

#[test]
fn every_fault_of_the_readings_is_listed_with_its_line() {
    let bench = Bench::new();
    let path = bench.path("readings.csv");
    let score = |text: &str| {
        fs::write(&path, text).unwrap();
        bench.run(&["study", "score", path.to_str().unwrap(), "--json"])
    };
    let said = score("reader,image,truth,answer\nA,1,real,maybe\nA,2,real,real\nA,2,synthetic,real\n");
    let faults =
        ["readings.csv: 3 faults", "line 2: answer is \"maybe\"", "line 4: \"A\" has read", "line 4: \"2\" is"];
    said.complains(2, &faults);
    assert_eq!(said.out, "");
    score("who,image,answer\n").complains(2, &["column \"reader\" is missing", "column \"truth\" is missing"]);
    bench.run(&["study", "score", "no-such.csv"]).complains(2, &["no-such.csv", "check that the path exists"]);
}
