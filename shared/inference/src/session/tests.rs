//! Sessions on small graphs.

use super::*;
use crate::onnx::Graph;

fn doubling() -> Vec<u8> {
    let mut graph = Graph::new("doubling");
    let x = graph.input("x", ElementType::F32, &["N".into(), 2.into()]);
    let two = graph.scalar(2.0);
    let y = graph.mul(&x, &two);
    graph.output(&y, "y", ElementType::F32, &["N".into(), 2.into()]);
    graph.finish().unwrap()
}

fn open(bytes: &[u8]) -> Session {
    let options = SessionOptions { threads: 1, ..Default::default() };
    Session::open(&Runtime::load().unwrap(), bytes, &options).unwrap()
}

#[test]
fn a_graph_runs_and_declares_its_ports() {
    let session = open(&doubling());
    assert_eq!(session.inputs()[0].to_string(), "x f32[N, 2]");
    let x = Tensor::f32([2, 2], vec![1.0, 2.0, 3.0, -0.5]).unwrap();
    let y = session.run_single(&[("x", x)]).unwrap();
    assert_eq!(y, Tensor::f32([2, 2], vec![2.0, 4.0, 6.0, -1.0]).unwrap());
}

#[test]
fn bound_runs_chain_and_earlier_outputs_stay_as_they_were() {
    let session = open(&doubling());
    let x = DeviceTensor::from_host(Tensor::f32([1, 2], vec![1.0, 3.0]).unwrap()).unwrap();
    let first = session.run_bound(&[("x", &x)], &[]).unwrap();
    let second = session.run_bound(&[("x", &first[0].1)], &["y"]).unwrap();
    let third = session.run_bound(&[("x", &second[0].1)], &["y"]).unwrap();
    drop(session);
    assert_eq!(first[0].1.to_host().unwrap().as_f32().unwrap(), [2.0, 6.0]);
    assert_eq!(second[0].1.to_host().unwrap().as_f32().unwrap(), [4.0, 12.0]);
    assert_eq!(third[0].1.to_host().unwrap().as_f32().unwrap(), [8.0, 24.0]);
    assert_eq!(third[0].1.shape(), [1, 2]);
}

#[test]
fn every_fault_of_the_inputs_is_named() {
    let session = open(&doubling());
    let tokens = Tensor::i64([1], vec![1]).unwrap();
    let text = session.run(&[("z", tokens.clone())]).unwrap_err().to_string();
    assert!(text.contains("\"z\" is not an input") && text.contains("x f32[N, 2] is missing"), "{text}");
    let text = session.run(&[("x", tokens)]).unwrap_err().to_string();
    assert!(text.contains("i64 of rank 1"), "{text}");
}

#[test]
fn a_wrong_size_and_damaged_bytes_are_errors() {
    let session = open(&doubling());
    assert!(session.run(&[("x", Tensor::f32([1, 3], vec![0.0; 3]).unwrap())]).is_err());
    let runtime = Runtime::load().unwrap();
    let error = Session::open(&runtime, b"not a model", &SessionOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Open { .. }), "{error}");
}

#[test]
fn sessions_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Session>();
    let session = open(&doubling());
    std::thread::scope(|scope| {
        for value in 0..4 {
            let session = &session;
            scope.spawn(move || {
                let x = Tensor::f32([1, 2], vec![value as f32; 2]).unwrap();
                let y = session.run_single(&[("x", x)]).unwrap();
                assert_eq!(y.as_f32().unwrap(), [2.0 * value as f32; 2]);
            });
        }
    });
}

#[test]
fn devices_are_read_as_people_write_them() {
    assert_eq!("cpu".parse(), Ok(Provider::Cpu));
    assert_eq!("cuda".parse(), Ok(Provider::Cuda { device: 0 }));
    assert_eq!("cuda:3".parse(), Ok(Provider::Cuda { device: 3 }));
    for text in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:99999", "CPU"] {
        let refused = text.parse::<Provider>().unwrap_err();
        assert!(refused.contains("cpu, cuda or cuda:N"), "{refused}");
    }
}

#[test]
fn a_run_counts_for_each_of_its_threads_and_no_device() {
    let session = open(&doubling());
    let (before, alone) = (time_in_all_runs(Provider::Cpu), time_in_runs());
    session.run(&[("x", Tensor::f32([1, 2], vec![1.0; 2]).unwrap())]).unwrap();
    // Other tests run beside this one.
    let (all, alone) = (time_in_all_runs(Provider::Cpu) - before, time_in_runs() - alone);
    assert!(alone > Duration::ZERO && all >= alone, "{all:?} {alone:?}");
    assert_eq!(time_in_all_runs(Provider::Cuda { device: 0 }), Duration::ZERO);
}
