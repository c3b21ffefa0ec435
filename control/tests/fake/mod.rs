//! A forwarder that forwards nothing: it keeps a table and answers every request.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sluice_table::protocol::{
    Call, Capacity, CounterGroup, Decoder, Direction, EgressRow, EndpointStatus, Hello, IngressRow, IoMode, IoTotals,
    Ledger, LegRow, LegState, PACKET_LIMIT, Polling, Refusal, Refused, RefusedStep, Reply, Request, Response, Snapshot,
    Status, StreamRows, TABLE_LIMIT, TraceRecord, WorkerStatus, encode,
};
use sluice_table::{DropReason, Kind, Name, Ssrc, Table};

#[derive(Default)]
struct State {
    table: Mutex<(Table, u64)>,
    /// Requests so far, and the time base of every counter.
    calls: AtomicU64,
    questions: AtomicU64,
}

/// A running fake.
pub(crate) struct Fake {
    pub(crate) socket: PathBuf,
    state: Arc<State>,
}

impl Fake {
    pub(crate) fn start(dir: &Path) -> Fake {
        let socket = dir.join("table.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        // Ends with the test process; each connection is served to its end before the next one.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &shared);
            }
        });
        Fake { socket, state }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.state.table.lock().unwrap().1
    }

    pub(crate) fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::SeqCst)
    }
}

fn serve(mut stream: UnixStream, state: &State) {
    let mut decoder = Decoder::new(TABLE_LIMIT);
    let mut chunk = [0; 4096];
    let mut greeted = false;
    loop {
        if greeted {
            while let Some(Call { id, request }) = decoder.next().unwrap() {
                for response in answer(request, state) {
                    if stream.write_all(&encode(&Reply { id, response }, TABLE_LIMIT).unwrap()).is_err() {
                        return;
                    }
                }
            }
        } else if let Some(hello) = decoder.next::<Hello>().unwrap() {
            greeted = true;
            stream.write_all(&encode(&hello.greet(0), PACKET_LIMIT).unwrap()).unwrap();
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => decoder.extend(&chunk[..n]),
        }
    }
}

fn answer(request: Request, state: &State) -> Vec<Response> {
    state.calls.fetch_add(1, Ordering::SeqCst);
    let mut held = state.table.lock().unwrap();
    vec![match request {
        Request::Apply { table, dry_run } => return vec![apply(&mut held, &table, dry_run)],
        Request::Clear => return vec![apply(&mut held, &Table::default(), false)],
        Request::Snapshot => Response::Snapshot(Box::new(Snapshot::of(&held.0, held.1, 0))),
        Request::Status => {
            let steps = state.questions.fetch_add(1, Ordering::SeqCst);
            Response::Status(Box::new(status(steps * 1000)))
        }
        Request::Legs => Response::Legs(vec![leg()]),
        Request::Streams => Response::Streams(streams()),
        Request::Counters => {
            let mut counts = vec![0; DropReason::COUNT];
            counts[DropReason::AuthTag.index()] = 7;
            Response::Counters(vec![CounterGroup::drops(&counts)])
        }
        Request::Trace { filter, count, .. } => {
            if filter.leg.is_some_and(|l| l.as_str() != "bob") {
                let refused = Refused::new(Refusal::BadArgument, "no leg is called nobody", "sluice legs");
                return vec![Response::Refused(refused)];
            }
            let traces = (0..count).map(|n| Response::Trace(trace(n)));
            let end = Response::TraceEnd { missed: 1 };
            return std::iter::once(Response::Ok).chain(traces).chain([end]).collect();
        }
        other => panic!("the command never asks {other:?}"),
    }]
}

fn apply(held: &mut (Table, u64), wanted: &Table, dry_run: bool) -> Response {
    if let Some((name, row)) = wanted.endpoints.iter().find(|(_, e)| e.interface != "eth0") {
        let detail = format!("endpoint {name} cannot be opened: no interface {}", row.interface);
        return Response::Refused(Refused::new(Refusal::Endpoint, detail, "ip link"));
    }
    let changes = held.0.diff(wanted);
    let views = held.0.describe(&changes);
    if !dry_run && !changes.is_empty() {
        if let Err(problems) = held.0.apply(&changes) {
            return Response::Refused(Refused::invalid(problems));
        }
        held.1 += 1;
    }
    Response::Applied { generation: held.1, changes: views }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn status(packets: u64) -> Status {
    let io = IoTotals { rx_frames: packets, rx_bytes: packets * 100, ..IoTotals::default() };
    Status {
        software: "0.1.0".to_owned(),
        // Whether such a process exists is of no matter to any test.
        pid: 4242,
        uptime_ms: 3_661_000,
        generation: 0,
        provider: "portable".to_owned(),
        provider_note: String::new(),
        workers: vec![WorkerStatus {
            worker: 0,
            cpu: Some(1),
            polling: Polling::Adaptive,
            steps: 100,
            busy_steps: 50,
            cpu_us: 10,
            legs: 1,
            opened: packets,
            sealed: packets,
            strays: 3,
            dropped: 9,
            io,
        }],
        endpoints: vec![EndpointStatus {
            endpoint: name("lan"),
            interface: "sluice-none0".to_owned(),
            address: "192.0.2.1:5004".parse().unwrap(),
            mode: IoMode::XdpCopy,
            refused: vec![RefusedStep { mode: IoMode::XdpZeroCopy, reason: "EOPNOTSUPP".to_owned() }],
            queues: 1,
            io,
        }],
        capacity: vec![Capacity { what: "legs".to_owned(), used: 1, limit: 100 }],
        ledger: Ledger { total: 1100, free: 1000, fill: 64, held: 4, transmit: 32 },
        degraded: Vec::new(),
    }
}

fn leg() -> LegRow {
    LegRow {
        leg: name("bob"),
        owner: 1,
        state: LegState::Active,
        remote: Some("192.0.2.11:5000".parse().unwrap()),
        fast: 80,
        slow: 0,
        stray: 20,
        rx_packets: 91,
        rx_bytes: 9100,
        tx_packets: 5,
        tx_bytes: 500,
        drops: vec![(DropReason::Replayed, 2), (DropReason::AuthTag, 7)],
        last_packet_ms: Some(20),
    }
}

fn streams() -> StreamRows {
    StreamRows {
        ingress: vec![IngressRow {
            name: name("alice-video"),
            learned: false,
            leg: name("alice"),
            ssrc: Ssrc(0x0a11_ce02),
            kind: Kind::Video,
            packets: 10,
            bytes: 1000,
            lost: 0,
            index: Some(65_540),
            roc: 1,
            layer: None,
            receivers: 1,
        }],
        egress: vec![EgressRow {
            name: name("bob/video"),
            leg: name("bob"),
            ssrc: Ssrc(2002),
            source: name("speaker"),
            current: Some(Ssrc(0x0a11_ce02)),
            packets: 10,
            bytes: 1000,
            dropped: 0,
            index: Some(10),
            epoch: 0,
        }],
    }
}

/// Ethernet, IPv4, UDP, RTP, and payload that must not get out.
fn trace(n: u64) -> TraceRecord {
    let mut header = vec![0; 12];
    header.extend_from_slice(&[0x08, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend_from_slice(&[0; 16]);
    header.extend_from_slice(&[0x80, 96, 0, n as u8, 0, 0, 0, 0, 0, 0, 0, 1]);
    header.extend_from_slice(b"PAYLOADPAYLOAD");
    TraceRecord {
        at_unix_ns: 1_700_000_000_000_000_000 + n,
        worker: 0,
        direction: Direction::In,
        leg: Some(name("bob")),
        dropped: None,
        length: 1200,
        header,
    }
}
