//! What the forwarder tells about itself: status, counters, legs and streams, put together from readings of the
//! workers.

use sluice_table::DropReason;
use sluice_table::Name;
use sluice_table::protocol::{
    Capacity, CounterGroup, EgressRow, EndpointStatus, IngressRow, IoMode, IoTotals, Ledger, LegRow, LegState, Polling,
    Status, StreamRows, WorkerStatus,
};

use std::collections::HashMap;

use super::manager::{LearnedStream, Manager};
use crate::config::Polling as Wait;
use crate::io::IoCounters;
use crate::worker::ports::KERNEL;
use crate::worker::{EgressSample, IngressSample, LegSample, READING_ROWS, Reading, Totals};

impl Manager {
    fn totals(&mut self) -> Vec<Totals> {
        let asked = (0..self.workers.len() as u8)
            .map(|worker| (worker, Reading { totals: Some(Box::default()), ..Reading::default() }))
            .collect();
        let mut totals = vec![Totals::default(); self.workers.len()];
        for (worker, reading) in self.read(asked) {
            if let Some(one) = reading.totals {
                totals[usize::from(worker)] = *one;
            }
        }
        totals
    }

    pub(super) fn status(&mut self) -> Status {
        let totals = self.totals();
        let polling = match self.fixed.polling {
            Wait::Busy => Polling::Busy,
            Wait::Adaptive => Polling::Adaptive,
            Wait::Interrupt => Polling::Interrupt,
        };
        let mut legs = vec![0u64; self.workers.len()];
        for name in self.planner.table().legs.keys() {
            if let Some((worker, _)) = self.planner.leg(name) {
                legs[usize::from(worker)] += 1;
            }
        }
        let workers = self.workers.iter().zip(&totals).zip(legs).map(|((handle, t), legs)| WorkerStatus {
            worker: u16::from(handle.worker),
            cpu: handle.cpu.map(|cpu| cpu as u32),
            polling,
            steps: t.counters.steps,
            busy_steps: t.busy,
            cpu_us: t.cpu_us,
            legs,
            opened: t.counters.opened,
            sealed: t.counters.sent,
            strays: t.counters.stray_out,
            dropped: t.counters.total_dropped(),
            io: sum(t.ports.iter().map(|(_, counters)| counters)),
        });
        let workers = workers.collect();
        let mut degraded = Vec::new();
        let endpoints: Vec<EndpointStatus> = self
            .endpoints
            .iter()
            .filter_map(|(name, endpoint)| {
                let interface = self.endpoints.interfaces().get(&endpoint.interface)?;
                let port = if interface.queues > 0 { interface.port } else { KERNEL };
                let mine = totals.iter().flat_map(|t| &t.ports).filter(|(id, _)| *id == port).map(|(_, c)| c);
                Some(EndpointStatus {
                    endpoint: name.clone(),
                    interface: endpoint.interface.clone(),
                    address: endpoint.address,
                    mode: interface.mode,
                    refused: interface.refused.clone(),
                    queues: interface.queues,
                    io: sum(mine),
                })
            })
            .collect();
        for endpoint in &endpoints {
            if endpoint.mode == IoMode::Udp || endpoint.mode == IoMode::XdpGeneric {
                let why: Vec<String> = endpoint.refused.iter().map(|r| format!("{}: {}", r.mode, r.reason)).collect();
                degraded.push(format!("endpoint {} uses {}: {}", endpoint.endpoint, endpoint.mode, why.join("; ")));
            }
        }
        let refused: u64 = totals.iter().map(|t| t.refused_jobs).sum();
        if refused > 0 {
            degraded.push(format!("{refused} crypto jobs were refused, which is a defect; please report it"));
        }
        let cells = |f: fn(&(usize, usize)) -> usize| totals.iter().map(|t| f(&t.cells) as u64).sum::<u64>();
        let mut capacity: Vec<Capacity> = self
            .planner
            .pools()
            .into_iter()
            .map(|(what, used, limit)| Capacity { what: what.to_owned(), used: used as u64, limit: limit as u64 })
            .collect();
        let (used, limit) = (self.learned.len() as u64, self.planner.learned_limit() as u64);
        capacity.push(Capacity { what: "learned streams".to_owned(), used, limit });
        let (free, all) = (cells(|c| c.0), cells(|c| c.1));
        capacity.push(Capacity { what: "opened packets".to_owned(), used: all - free, limit: all });
        Status {
            software: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            generation: self.planner.generation().0,
            provider: self.fixed.provider.clone(),
            provider_note: self.fixed.provider_note.clone(),
            workers,
            endpoints,
            capacity,
            ledger: Ledger {
                total: all,
                free,
                fill: 0,
                held: all - free,
                transmit: totals.iter().map(|t| t.frames_out).sum(),
            },
            degraded,
        }
    }

    pub(super) fn counters(&mut self) -> Vec<CounterGroup> {
        let totals = self.totals();
        let mut drops = vec![0u64; DropReason::COUNT];
        for reason in DropReason::ALL {
            drops[reason.index()] = totals.iter().map(|t| t.counters.dropped(*reason)).sum();
        }
        let total = |f: fn(&crate::engine::Counters) -> u64| totals.iter().map(|t| f(&t.counters)).sum::<u64>();
        let packets = [
            ("received", total(|c| c.received)),
            ("opened", total(|c| c.opened)),
            ("sealed", total(|c| c.sent)),
            ("sealed_bytes", total(|c| c.sent_bytes)),
            ("rtcp_in", total(|c| c.rtcp_in)),
            ("packet_in", total(|c| c.packet_in)),
            ("stun_answered", total(|c| c.stun_answered)),
            ("consent_checks", total(|c| c.consent_checks)),
            ("consent_renewed", total(|c| c.consent_renewed)),
            ("rtcp_out", total(|c| c.rtcp_out)),
            ("packet_out", total(|c| c.packet_out)),
            ("stray_out", total(|c| c.stray_out)),
            ("stray_in", total(|c| c.stray_in)),
        ];
        let feedback = [
            ("transport_out", total(|c| c.transport_out)),
            ("reports_out", total(|c| c.reports_out)),
            ("requests_out", total(|c| c.requests_out)),
            ("key_frames_asked", total(|c| c.key_frames_asked)),
            ("key_frames_wanted", total(|c| c.key_frames_wanted)),
            ("key_frames_saved", total(|c| c.key_frames_saved)),
            ("key_frame_requests", total(|c| c.key_frame_requests)),
            ("nacks_in", total(|c| c.nacks_in)),
            ("sent_again", total(|c| c.sent_again)),
            ("nacks_out", total(|c| c.nacks_out)),
            ("nacks_given_up", total(|c| c.nacks_given_up)),
            ("repaired", total(|c| c.repaired)),
        ];
        let named = |counters: &[(&str, u64)]| counters.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let mut groups = vec![
            CounterGroup { group: "packets".to_owned(), counters: named(&packets) },
            CounterGroup::drops(&drops),
            CounterGroup { group: "feedback".to_owned(), counters: named(&feedback) },
        ];
        let io = sum(totals.iter().flat_map(|t| &t.ports).map(|(_, c)| c));
        groups.push(CounterGroup {
            group: "io".to_owned(),
            counters: named(&[
                ("rx_frames", io.rx_frames),
                ("rx_bytes", io.rx_bytes),
                ("tx_frames", io.tx_frames),
                ("tx_bytes", io.tx_bytes),
                ("kicks", io.kicks),
                ("rx_ring_full", io.rx_ring_full),
                ("rx_fill_empty", io.rx_fill_empty),
                ("rx_dropped", io.rx_dropped),
                ("tx_invalid", io.tx_invalid),
                ("tx_failed", io.tx_failed),
            ]),
        });
        let control = self.packet_counts.named();
        groups.push(CounterGroup { group: "control".to_owned(), counters: named(&control) });
        for (interface, verdicts) in self.endpoints.verdicts() {
            groups.push(CounterGroup { group: format!("xdp.{interface}"), counters: named(&verdicts) });
        }
        groups
    }

    pub(super) fn leg_rows(&mut self) -> Vec<LegRow> {
        let names: Vec<(Name, u8, u32)> = self
            .planner
            .table()
            .legs
            .keys()
            .filter_map(|name| {
                let (worker, slot) = self.planner.leg(name)?;
                Some((name.clone(), worker, slot))
            })
            .collect();
        let samples = self.sample(
            &names,
            |reading, slot| reading.legs.push((slot, None)),
            |reading| {
                reading.legs.iter().map(|(slot, sample)| (*slot, *sample)).collect::<Vec<(u32, Option<LegSample>)>>()
            },
        );
        let sent = self.sent_by_leg();
        let mut rows = Vec::with_capacity(names.len());
        for (name, worker, slot) in names {
            let sample = samples.get(&(worker, slot)).copied().unwrap_or_default();
            let remote = self.planner.remote(&name);
            let stats = sample.stats;
            let age =
                (stats.last_authenticated.0 > 0).then(|| sample.now.since(stats.last_authenticated).0 / 1_000_000);
            let keyless = self.planner.table().legs.get(&name).is_some_and(|leg| {
                leg.inbound.is_none() && leg.outbound.is_none() && leg.kind != sluice_table::LegKind::Plain
            });
            let state = match (remote, age) {
                (None, _) => LegState::Learning,
                _ if sample.consent_lost => LegState::ConsentLost,
                _ if keyless => LegState::AwaitingKeys,
                _ if !sample.has_hop => LegState::NoNextHop,
                (_, Some(age)) if age > 5_000 => LegState::Silent,
                _ => LegState::Active,
            };
            let (tx_packets, tx_bytes) = sent.get(&name).copied().unwrap_or_default();
            rows.push(LegRow {
                leg: name,
                owner: u16::from(worker),
                state,
                remote,
                fast: stats.fast,
                slow: stats.slow,
                stray: stats.stray,
                rx_packets: stats.fast + stats.slow + stats.stray,
                rx_bytes: stats.bytes,
                tx_packets,
                tx_bytes,
                drops: Vec::new(),
                last_packet_ms: age,
            });
        }
        rows
    }

    fn sent_by_leg(&mut self) -> std::collections::HashMap<Name, (u64, u64)> {
        let mut sent = std::collections::HashMap::new();
        for row in self.stream_rows().egress {
            let entry: &mut (u64, u64) = sent.entry(row.leg).or_default();
            entry.0 += row.packets;
            entry.1 += row.bytes;
        }
        sent
    }

    pub(super) fn stream_rows(&mut self) -> StreamRows {
        let table = self.planner.table().clone();
        let at = |found: Option<(u8, u32)>, name: &Name| found.map(|(worker, slot)| (name.clone(), worker, slot));
        let ingress: Vec<_> =
            table.ingress.iter().filter_map(|(n, r)| at(self.planner.ingress(&r.leg, r.ssrc), n)).collect();
        let egress: Vec<_> =
            table.egress.iter().filter_map(|(n, r)| at(self.planner.egress(&r.leg, r.ssrc), n)).collect();
        let in_samples = self.sample(
            &ingress,
            |reading, slot| reading.ingress.push((slot, None)),
            |reading| {
                reading
                    .ingress
                    .iter()
                    .map(|(slot, sample)| (*slot, *sample))
                    .collect::<Vec<(u32, Option<IngressSample>)>>()
            },
        );
        let out_samples = self.sample(
            &egress,
            |reading, slot| reading.egress.push((slot, None)),
            |reading| {
                reading
                    .egress
                    .iter()
                    .map(|(slot, sample)| (*slot, *sample))
                    .collect::<Vec<(u32, Option<EgressSample>)>>()
            },
        );
        let mut receivers = std::collections::HashMap::<&Name, u32>::new();
        for row in table.egress.values() {
            *receivers.entry(&row.source).or_default() += 1;
        }
        let ingress = ingress.iter().map(|(name, worker, slot)| {
            let (row, sample) = (&table.ingress[name], in_samples.get(&(*worker, *slot)).copied().unwrap_or_default());
            let expected = sample.index.zip(sample.first).map_or(0, |(last, first)| last.saturating_sub(first) + 1);
            IngressRow {
                name: name.clone(),
                learned: false,
                leg: row.leg.clone(),
                ssrc: row.ssrc,
                kind: row.kind,
                packets: sample.packets,
                bytes: sample.bytes,
                lost: expected.saturating_sub(sample.packets),
                index: sample.index,
                roc: sample.index.map_or(0, |i| (i >> 16) as u32),
                layer: None,
                receivers: receivers.get(name).copied().unwrap_or(0),
            }
        });
        let egress = egress.iter().map(|(name, worker, slot)| {
            let (row, sample) = (&table.egress[name], out_samples.get(&(*worker, *slot)).copied().unwrap_or_default());
            EgressRow {
                name: name.clone(),
                leg: row.leg.clone(),
                ssrc: row.ssrc,
                source: row.source.clone(),
                current: sample.source.and_then(|source| self.source_ssrc(source)),
                packets: sample.packets,
                bytes: sample.bytes,
                dropped: 0,
                index: sample.index,
                epoch: sample.epochs,
            }
        });
        let mut rows = StreamRows { ingress: ingress.collect(), egress: egress.collect() };
        rows.ingress.extend(self.learned_rows(&table, &receivers));
        rows
    }

    /// Rows of streams that learn rules made, under their rule's name.
    fn learned_rows(&mut self, table: &sluice_table::Table, receivers: &HashMap<&Name, u32>) -> Vec<IngressRow> {
        let at: Vec<(Name, u8, u32)> = self.learned.iter().map(|(rule, s)| (rule.clone(), s.worker, s.slot)).collect();
        let samples = self.sample(
            &at,
            |reading, slot| reading.ingress.push((slot, None)),
            |reading| {
                reading
                    .ingress
                    .iter()
                    .map(|(slot, sample)| (*slot, *sample))
                    .collect::<Vec<(u32, Option<IngressSample>)>>()
            },
        );
        let row = |(rule, stream): (&Name, &LearnedStream)| {
            let config = table.learn.get(rule)?;
            let sample = samples.get(&(stream.worker, stream.slot)).copied().unwrap_or_default();
            let expected = sample.index.zip(sample.first).map_or(0, |(last, first)| last.saturating_sub(first) + 1);
            Some(IngressRow {
                name: rule.clone(),
                learned: true,
                leg: config.leg.clone(),
                ssrc: stream.ssrc,
                kind: config.kind,
                packets: sample.packets,
                bytes: sample.bytes,
                lost: expected.saturating_sub(sample.packets),
                index: sample.index,
                roc: sample.index.map_or(0, |i| (i >> 16) as u32),
                layer: None,
                receivers: receivers.get(rule).copied().unwrap_or(0),
            })
        };
        self.learned.iter().filter_map(row).collect()
    }

    /// Reads one sample of each row, in readings small enough not to hold packets up.
    fn sample<S>(
        &mut self,
        rows: &[(Name, u8, u32)],
        ask: impl Fn(&mut Reading, u32),
        take: impl Fn(&Reading) -> Vec<(u32, Option<S>)>,
    ) -> std::collections::HashMap<(u8, u32), S> {
        let mut readings = Vec::new();
        for worker in 0..self.workers.len() as u8 {
            let slots: Vec<u32> = rows.iter().filter(|(_, w, _)| *w == worker).map(|(.., slot)| *slot).collect();
            for chunk in slots.chunks(READING_ROWS) {
                let mut reading = Reading::default();
                for slot in chunk {
                    ask(&mut reading, *slot);
                }
                readings.push((worker, reading));
            }
        }
        let mut samples = std::collections::HashMap::with_capacity(rows.len());
        for (worker, reading) in self.read(readings) {
            samples.extend(take(&reading).into_iter().filter_map(|(slot, s)| Some(((worker, slot), s?))));
        }
        samples
    }
}

fn sum<'a>(counters: impl Iterator<Item = &'a IoCounters>) -> IoTotals {
    counters.fold(IoTotals::default(), |mut all, one| {
        all.rx_frames += one.rx_frames;
        all.rx_bytes += one.rx_bytes;
        all.tx_frames += one.tx_frames;
        all.tx_bytes += one.tx_bytes;
        all.kicks += one.kicks;
        all.rx_ring_full += one.rx_ring_full;
        all.rx_fill_empty += one.rx_fill_empty;
        all.rx_dropped += one.rx_dropped;
        all.tx_invalid += one.tx_invalid;
        all.tx_failed += one.tx_failed;
        all
    })
}
