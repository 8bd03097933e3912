//! Tools of others that try the API by its own description.

use std::{fs::File, path::Path, process::Command};

use hiresmed_telemetry::Metrics;

use crate::{
    harness::Site,
    process::{Coordinator, key, python, script},
};

/// Runs a tool and asserts that it is content.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/tools/install"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_valid_and_a_client_can_be_generated() {
    let site = Site::open().await;
    let coordinator = Coordinator::start(site.path());
    let document = coordinator.document();
    run(Command::new(python()).arg(script("check_document.py")).arg(&document));
    let client = site.path().join("client");
    let generator = python().with_file_name("openapi-python-client");
    let text = run(Command::new(generator)
        .args(["generate", "--meta", "none", "--fail-on-warning", "--config"])
        .arg(script("generator.yml"))
        .args(["--path".as_ref(), document.as_os_str(), "--output-path".as_ref(), client.as_os_str()]));
    assert!(!text.contains("WARNING"), "{text}");
    run(Command::new(python()).args(["-m", "compileall", "-q"]).arg(&client));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_makes_the_coordinator_fail_or_answer_what_it_does_not_describe() {
    let site = Site::open().await;
    let all = key(site.path(), "charite", &["submit", "read", "operate"]);
    // What the description's own example asks for is there: its request is accepted, and the calls that follow are tried.
    site.store.put("sites/charite/inputs/sample/a.dcm", "a".into()).await.unwrap();
    let coordinator = Coordinator::start(site.path());
    let document = coordinator.document();
    run(Command::new(python().with_file_name("schemathesis"))
        .current_dir(site.path())
        .arg("run")
        .arg(&document)
        .args(["--url", &coordinator.url, "-H", &format!("Authorization: Bearer {all}")])
        .args(["--max-examples", "20", "--seed", "1", "--generation-database", "none", "--no-color"])
        .args(["--request-timeout", "10"])
        // These wait for a request's end; the other tests follow them.
        .args(["--exclude-path-regex", "/(events|stream)$"])
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
             response_headers_conformance,unsupported_method,ignored_auth,negative_data_rejection",
        ]));
    let answer = coordinator.get(&all, "/readyz");
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_accepts_the_metrics_the_alerts_and_its_settings() {
    let site = Site::open().await;
    let coordinator = Coordinator::start(site.path());
    let reader = key(site.path(), "charite", &["read"]);
    coordinator.get(&reader, "/v1/models");
    // What a worker and a trainer show is the same list with other values.
    let others = Metrics::new().unwrap();
    others.job_ended("train_round", "succeeded", 3.5);
    others.stage_ended("placement", 0.01);
    others.set_training_loss("vqgan", "commitment", 0.25);
    let expositions = [coordinator.get(&reader, "/metrics").bytes, others.render().unwrap().into_bytes()];
    let promtool = || Command::new("promtool");
    for (number, exposition) in expositions.into_iter().enumerate() {
        let file = site.path().join(format!("exposition-{number}"));
        std::fs::write(&file, exposition).unwrap();
        let text = run(promtool().args(["check", "metrics"]).stdin(File::open(&file).unwrap()));
        assert!(text.trim().is_empty(), "promtool advises:\n{text}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra/prometheus");
    run(promtool().args(["check", "rules"]).arg(folder.join("rules.yml")));
    run(promtool().args(["test", "rules"]).arg(folder.join("rules.test.yml")));
    run(promtool().args(["check", "config"]).arg(folder.join("prometheus.yml")));
}
