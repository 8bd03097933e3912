//! A real training by real trainers, which come and go.

use std::time::{Duration, Instant};

use hiresmed_protocol::{
    Digest, Event, Happening, RequestId, Verdict, keys,
    outcome::{Outcome, RoundResult},
};
use hiresmed_tests::{
    fleet::Fleet,
    servers::{Process, fresh},
};
use rustix::process::{Pid, Signal, kill_process};

use crate::{MOST, open};

/// Steps of the whole training; the first round has 20 of them, the second one wants the rest.
const REQUEST: &str = "kind = \"train\"\nname = \"moved\"\nmodel = \"vqgan\"\npreset = \"tiny\"\ndata = [\"slices\"]\nsteps = 140\nseed = 3";

/// Puts a few slices of the sample series into the store as a data set of `site`.
async fn upload(fleet: &Fleet, site: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/pack/sample/series");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files[6..9] {
        let name = file.file_name().unwrap().to_string_lossy();
        let key = format!("{}slices/{name}", keys::inputs(&site.parse().unwrap()));
        fleet.store().put(&key, std::fs::read(file).unwrap().into()).await.unwrap();
    }
}

/// The rounds that a training made, in their order.
async fn rounds(fleet: &Fleet, id: &RequestId) -> Vec<(Outcome, RoundResult)> {
    let outcomes = fleet.ledger.outcomes(id).await.unwrap();
    let made = outcomes.into_values().map(|outcome| match &outcome.verdict {
        Verdict::Succeeded(success) => {
            let round = success.round.clone().unwrap();
            (outcome, round)
        }
        verdict => panic!("a round ended otherwise: {verdict:?}"),
    });
    made.collect()
}

/// The digest of the finished package.
fn package(rounds: &[(Outcome, RoundResult)]) -> Digest {
    rounds.last().unwrap().1.package.as_ref().unwrap().sha256
}

/// Waits until somebody reports a loss at `step` or later, and gives the names of the terms.
async fn trained_to(fleet: &Fleet, id: &RequestId, step: u64) -> Vec<String> {
    let mut events = fleet.services.queue.subscribe(&Event::topics_of(id)).await.unwrap();
    let heard = async {
        loop {
            let notice = events.next().await.unwrap();
            let event: Event = serde_json::from_slice(&notice.payload).unwrap();
            if let Happening::TrainingLoss { step: at, terms, .. } = event.happening
                && at >= step
            {
                return terms.into_keys().collect();
            }
        }
    };
    tokio::time::timeout(MOST, heard).await.unwrap_or_else(|_| panic!("no step {step} after {MOST:?}"))
}

/// What a part says at its /metrics.
fn metrics(fleet: &Fleet, name: &str) -> String {
    let log = std::fs::read_to_string(fleet.log(name)).unwrap();
    let address = log.split_once("status=").unwrap().1.split_whitespace().next().unwrap();
    ureq::get(&format!("http://{address}/metrics")).call().unwrap().into_body().read_to_string().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_moves_between_trainers_and_ends_in_the_same_model() {
    let fleet = open(fresh()).await;
    for site in ["north", "south"] {
        upload(&fleet, site).await;
    }
    let _coordinator = fleet.start("coordinator", "coordinator", 0);
    let mut calm = fleet.start_trainer("calm");
    let plan = fleet.submit_any("north", REQUEST).await;
    let started = Instant::now();
    fleet.end(&plan.request, MOST).await;
    let undisturbed = started.elapsed();
    let expected = package(&rounds(&fleet, &plan.request).await);
    let exposition = metrics(&fleet, "calm");
    stop(&mut calm);

    let mut first = fleet.start_trainer("first");
    let plan = fleet.submit_any("south", REQUEST).await;
    let started = Instant::now();
    let terms = trained_to(&fleet, &plan.request, 40).await;
    first.kill();
    let mut second = fleet.start_trainer("second");
    trained_to(&fleet, &plan.request, 60).await;
    stop(&mut second);
    let _third = fleet.start_trainer("third");
    fleet.end(&plan.request, MOST).await;
    println!("trainer killed, another drained: {:?} instead of {undisturbed:?}", started.elapsed());

    let rounds = rounds(&fleet, &plan.request).await;
    assert_eq!(package(&rounds), expected);
    let workers: Vec<_> = rounds.iter().map(|(outcome, _)| outcome.worker.as_str()).collect();
    assert_eq!(workers, ["first", "second", "third"], "what the killed one had not finished was made again");
    assert!(rounds[1].1.step < 140, "the drained one stopped early: {:?}", rounds[1].1);
    for term in terms {
        let sample = format!("hiresmed_training_loss{{model=\"vqgan\",term=\"{term}\"}}");
        assert!(exposition.contains(&sample), "{sample} is not in\n{exposition}");
    }
    assert!(exposition.contains("hiresmed_jobs_total{kind=\"train_round\",outcome=\"succeeded\"} 2"), "{exposition}");
}

/// Asks a trainer to stop and waits until it has.
fn stop(trainer: &mut Process) {
    let asked = Instant::now();
    kill_process(Pid::from_raw(trainer.id() as i32).unwrap(), Signal::TERM).unwrap();
    while !trainer.ended() {
        assert!(asked.elapsed() < Duration::from_secs(20), "the trainer does not drain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
