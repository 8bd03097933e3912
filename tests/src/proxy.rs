//! A TCP proxy that disturbs what goes through it. It has threads of its own and no runtime: it works on while a test's
//! runtime is busy.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// What the proxy does, with new connections and with those under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    Pass,
    /// Ends every connection at once.
    Refuse,
    /// Holds each piece back for this time, both ways.
    Latency(Duration),
    /// Ends a connection when so many bytes of the server's have passed since the fault began.
    CutAfter(usize),
    /// Reads and answers nothing: a server that hangs.
    Silence,
    /// Answers each piece of the client's with these bytes, without the server.
    Answer(Vec<u8>),
}

/// A proxy before a server. Dropping it ends its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    fault: Mutex<(Fault, u64)>,
    /// Both ends of each connection, by its number.
    open: Mutex<BTreeMap<usize, [TcpStream; 2]>>,
    accepted: AtomicUsize,
    stopped: AtomicBool,
}

impl Proxy {
    /// Stands before `upstream`, `host:port`.
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            fault: Mutex::new((Fault::Pass, 0)),
            open: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = accepting.accepted.fetch_add(1, Ordering::SeqCst);
                accepting.clone().serve(number, client);
            }
        });
        Self { address, shared }
    }

    /// `host:port` of the proxy.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Does this from now on.
    pub fn set(&self, fault: Fault) {
        let mut current = self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = fault == Fault::Refuse;
        *current = (fault, current.1 + 1);
        drop(current);
        if refuse {
            self.cut();
        }
    }

    /// Ends all connections that are open now.
    pub fn cut(&self) {
        let open = std::mem::take(&mut *self.shared.open());
        for stream in open.into_values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections came so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn fault(&self) -> (Fault, u64) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<usize, [TcpStream; 2]>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(self: Arc<Self>, number: usize, client: TcpStream) {
        if self.fault().0 == Fault::Refuse {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        let pairs = [(client.try_clone(), server.try_clone(), false), (server.try_clone(), client.try_clone(), true)];
        self.open().insert(number, [client, server]);
        for (from, to, is_answer) in pairs {
            let (Ok(from), Ok(to)) = (from, to) else { return };
            let shared = self.clone();
            thread::spawn(move || {
                shared.copy(from, to, is_answer);
                // Neither way goes on without the other.
                shared.open().remove(&number);
            });
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, is_answer: bool) {
        let mut piece = vec![0; 64 << 10];
        let (mut era, mut passed) = (0, 0);
        while let Ok(length @ 1..) = from.read(&mut piece) {
            let (fault, now) = self.fault();
            if now != era {
                (era, passed) = (now, 0);
            }
            let mut sent = length;
            match fault {
                Fault::Pass => {}
                Fault::Refuse => break,
                Fault::Latency(time) => thread::sleep(time),
                Fault::CutAfter(most) if is_answer => sent = length.min(most.saturating_sub(passed)),
                Fault::CutAfter(_) => {}
                Fault::Silence => continue,
                Fault::Answer(answer) => {
                    if !is_answer && from.write_all(&answer).is_err() {
                        break;
                    }
                    continue;
                }
            }
            passed += sent;
            if to.write_all(&piece[..sent]).is_err() || sent < length {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
