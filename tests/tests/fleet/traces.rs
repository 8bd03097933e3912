//! Spans of coordinator and worker reach an OpenTelemetry collector, in the trace of their request.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hiresmed_protocol::Digest;
use hiresmed_tests::{fleet::Fleet, servers::fresh};

/// A call's first line and body.
type Call = (String, Vec<u8>);

/// What a collector was sent, one call after the other.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Call>>>);

impl Collected {
    fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads calls, one after the other, and answers that all is well.
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let (call, mut length) = (line.trim_end().to_owned(), 0);
            line.clear();
            while reader.read_line(&mut line)? > 2 {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                line.clear();
            }
            line.clear();
            let mut body = vec![0; length];
            reader.read_exact(&mut body)?;
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((call, body));
            (&stream)
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")?;
        }
        Ok(())
    }
}

fn collector() -> (String, Collected) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, collected) = (format!("http://{}", listener.local_addr().unwrap()), Collected::default());
    let (accepting, shared) = (listener, collected.clone());
    std::thread::spawn(move || {
        for stream in accepting.incoming().flatten() {
            let collected = shared.clone();
            // A part that is killed breaks its connection off.
            std::thread::spawn(move || drop(collected.serve(stream)));
        }
    });
    (url, collected)
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_all_parts_join_in_the_trace_of_their_request() {
    let (url, collected) = collector();
    let mut fleet = Fleet::open(fresh(), env!("CARGO_BIN_EXE_fleet-part"), &["north"]).await;
    fleet.collector = Some(url);
    let _parts = [fleet.start("coordinator", "coordinator", 0), fleet.start("worker", "worker", 1)];
    let plan = fleet.submit("north", "count = 4\nchunk = 2").await;
    fleet.finish(&plan.request, Duration::from_secs(60)).await;
    let trace = Digest::of(plan.request.as_str().as_bytes());
    let has = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|window| window == part);
    let started = Instant::now();
    // Spans go out in batches, some seconds apart.
    loop {
        let calls = collected.calls();
        let named =
            |name: &str| calls.iter().any(|(_, body)| has(body, name.as_bytes()) && has(body, &trace.as_bytes()[..16]));
        if named("publish") && named("job") && named(plan.jobs[0].id.as_str()) {
            assert!(calls.iter().all(|(call, _)| call.starts_with("POST /v1/traces ")), "{calls:?}");
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the spans did not arrive: {} calls", calls.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
