//! Keeps the link up: connects, runs a session, waits, connects again. Never gives up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::counters::Count;
use super::error::LinkError;
use super::handle::{Command, Inside};
use super::session;
use super::{LinkConfig, LinkEvent};

pub(super) async fn run(config: LinkConfig, mut inside: Inside) {
    let mut wait = config.retry_least;
    let mut said = String::new();
    for session in 1.. {
        let opened = tokio::select! {
            opened = session::open(&config) => opened,
            never = refuse(&mut inside) => match never {},
        };
        let reason = match opened {
            Ok(open) => {
                wait = config.retry_least;
                let ended = session::run(&config, &mut inside, open, session).await;
                if inside.shared.up.swap(false, Ordering::AcqRel) {
                    inside.shared.counters.add(Count::Disconnected);
                    said.clear();
                }
                ended
            }
            Err(reason) => reason,
        };
        let reason = reason.to_string();
        if reason != said {
            said.clone_from(&reason);
            tokio::select! {
                sent = inside.events.send((session, LinkEvent::Down(reason))) => if sent.is_err() { return },
                never = drain(&mut inside.commands, &mut inside.packets, &inside.shared) => match never {},
            }
        }
        if inside.events.is_closed() {
            return;
        }
        pause(&mut inside, wait).await;
        wait = (wait * 2).min(config.retry_most);
    }
}

/// Waits, refusing what is asked meanwhile.
async fn pause(inside: &mut Inside, wait: Duration) {
    tokio::select! {
        () = sleep_until(Instant::now() + wait) => {}
        never = refuse(inside) => match never {},
    }
}

async fn refuse(inside: &mut Inside) -> std::convert::Infallible {
    drain(&mut inside.commands, &mut inside.packets, &inside.shared).await
}

/// Drops transactions and packets and refuses questions, for as long as it is polled.
async fn drain(
    commands: &mut tokio::sync::mpsc::Receiver<Command>,
    packets: &mut tokio::sync::mpsc::Receiver<sluice_table::protocol::PacketMessage>,
    shared: &super::handle::Shared,
) -> std::convert::Infallible {
    loop {
        tokio::select! {
            Some(command) = commands.recv() => match command {
                Command::Transaction { .. } | Command::Table { .. } => shared.counters.add(Count::Stale),
                // Whoever asked may have gone.
                Command::Question { answer, .. } => drop(answer.send(Err(LinkError::Down))),
            },
            Some(_) = packets.recv() => shared.counters.add(Count::PacketsOutDropped),
            // Every handle is gone; the node may still listen.
            else => std::future::pending().await,
        }
    }
}
