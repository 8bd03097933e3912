use super::*;

fn near(value: f64, expected: f64) {
    assert!((value - expected).abs() <= 1e-9 * expected.abs().max(1e-300), "{value} is not {expected}");
}

/// Tables 3 and 4 of the paper, recomputed from the counts of table 3 (n = 200, 100 real and 100 synthetic).
///
/// Two of the paper's p-values do not follow from its counts. Table 4 gives 0.046 for the intermediate reader's accuracy
/// against guessing; 110 right of 200 give 0.179. The text gives p < 0.01 for a specificity of 45 of 100 against guessing;
/// it is 0.368. The κ of table 4, 0.3 and 0.1, is each reader's against the truth, not between the readers. The text's 72
/// false positives of the intermediate reader are 55 in table 3.
#[test]
fn the_papers_tables_3_and_4_follow_from_their_counts_but_for_two_p_values() {
    let senior = Reader::new("senior", Counts { tp: 85, fn_: 15, fp: 55, tn: 45 });
    let intermediate = Reader::new("intermediate", Counts { tp: 65, fn_: 35, fp: 55, tn: 45 });
    let rates = |reader: &Reader| [reader.sensitivity, reader.specificity, reader.accuracy].map(Option::unwrap);
    assert_eq!(rates(&senior), [0.85, 0.45, 0.65]);
    assert_eq!(rates(&intermediate), [0.65, 0.45, 0.55]);
    near(senior.kappa_truth.unwrap(), 0.3);
    near(intermediate.kappa_truth.unwrap(), 0.1);

    // SciPy's binomtest(k, n, 0.5).pvalue.
    near(senior.p_accuracy_binomial, 2.6528755595268727e-05);
    assert!(senior.p_accuracy_binomial < 0.001, "as table 4 says");
    near(intermediate.p_accuracy_binomial, 0.17896403953325155);
    assert!(intermediate.p_accuracy_binomial > 0.046, "table 4 says 0.046");
    near(binomial_half(45, 100), 0.36820161732669615);
    assert!(binomial_half(45, 100) > 0.01, "the text says p < 0.01");

    // Both lean to "real".
    near(senior.p_mcnemar, 1.652519847797991e-06);
    near(intermediate.p_mcnemar, 0.04459752462791592);
}

fn reading(reader: &str, image: &str, truth: Class, answer: Class) -> Reading {
    Reading { reader: reader.to_owned(), image: image.to_owned(), truth, answer }
}

#[test]
fn readers_are_compared_over_the_images_that_both_have_read() {
    use Class::{Real, Synthetic};
    let readings = [
        reading("Z", "1", Real, Real),
        reading("Z", "2", Real, Synthetic),
        reading("A", "2", Real, Real),
        reading("A", "3", Synthetic, Synthetic),
        reading("Z", "3", Synthetic, Synthetic),
        reading("A", "4", Synthetic, Real),
        reading("none", "9", Real, Real),
    ];
    let study = score(&readings);
    let names: Vec<_> = study.readers.iter().map(|reader| &*reader.reader).collect();
    assert_eq!(names, ["Z", "A", "none"], "in the order of their first readings");
    assert_eq!(study.readers[0].counts, Counts { tp: 1, fn_: 1, fp: 0, tn: 1 });
    let pairs: Vec<_> = study.between.iter().map(|pair| (&*pair.a, &*pair.b)).collect();
    assert_eq!(pairs, [("Z", "A"), ("Z", "none"), ("A", "none")]);
    // Image 2 and 3: Z says synthetic twice, A real and synthetic; only A is right on 2.
    assert_eq!(study.between[0].kappa, Some(0.0));
    assert_eq!(study.between[0].p_mcnemar, 1.0);
    assert_eq!((study.between[1].kappa, study.between[1].p_mcnemar), (None, 1.0));
}

#[test]
fn ratios_without_a_denominator_are_null() {
    let reader = Reader::new("A", Counts { tp: 3, fn_: 1, fp: 0, tn: 0 });
    let json = serde_json::to_value(&reader).unwrap();
    assert_eq!(json["specificity"], serde_json::Value::Null);
    assert_eq!(json["sensitivity"], 0.75);
    assert_eq!(json["fn"], 1);
    let keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys.len(), 12, "{keys:?}");
}
