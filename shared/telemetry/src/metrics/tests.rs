use std::collections::BTreeSet;

use super::*;

/// Metrics of which each has one series.
fn used() -> Metrics {
    let metrics = Metrics::new().unwrap();
    metrics.job_ended("synthesise", "succeeded", 12.5);
    metrics.stage_ended("background", 0.25);
    metrics.set_jobs_in_flight("synthesise", 4);
    metrics.set_backlog("train_round", "local", 7);
    metrics.images_made("ct", 25);
    metrics.checkpoint_looked_up("hit");
    metrics.model_loaded("vqgan", 0.4);
    metrics.set_accelerator_busy(0.75);
    metrics.set_training_loss("vqgan", "l1", 0.125);
    metrics.set_score("vqgan_psnr_db", 36.5);
    metrics.call_answered("GET", "/v1/requests/{id}", 200, 0.0625);
    metrics
}

#[test]
fn the_exposition_is_the_stored_one() {
    let expected = include_str!("exposition.txt");
    let found = used().render().unwrap();
    assert!(found == expected, "metrics/exposition.txt differs from the code; it would be:\n{found}");
}

#[test]
fn every_definition_is_registered_with_its_labels_and_no_other_metric_is() {
    let families = used().registry.gather();
    let registered: BTreeSet<&str> = families.iter().map(|family| family.name()).collect();
    let defined: BTreeSet<&str> = DEFINITIONS.iter().map(|definition| definition.name).collect();
    assert_eq!(registered, defined);
    assert_eq!(defined.len(), DEFINITIONS.len(), "a name twice");
    for definition in &DEFINITIONS {
        let family = families.iter().find(|family| family.name() == definition.name).unwrap();
        let labels: BTreeSet<&str> = family.get_metric()[0].get_label().iter().map(|label| label.name()).collect();
        assert_eq!(labels, definition.labels.iter().copied().collect(), "{}", definition.name);
    }
}

#[test]
fn names_follow_prometheus_conventions() {
    for Definition { name, help, kind, buckets, .. } in DEFINITIONS {
        assert!(name.starts_with("hiresmed_") && help.ends_with('.'), "{name}");
        assert_eq!(kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(kind == Kind::Histogram, !buckets.is_empty(), "{name}");
        assert_eq!(kind == Kind::Histogram, name.ends_with("_seconds"), "{name}");
        assert!(buckets.is_sorted_by(|a, b| a < b), "{name}");
    }
}
