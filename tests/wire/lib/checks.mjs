// What a good call looks like from a client: each check throws with the evidence it judged by.

import assert from 'node:assert/strict';
import { NODE_ADDRESS } from './namespaces.mjs';
import { MEDIA_PORT } from './service.mjs';
import { sleep } from './wait.mjs';

const sum = (rows, name) => rows.reduce((total, row) => total + (row[name] ?? 0), 0);
const ofKind = (stats, kind) => stats.inbound.filter(row => row.kind === kind);

/** Waits until the client is in the call with the SFT. */
export async function established(client, seconds = 20) {
  await client.until('the call to be established', seconds, seen => {
    if (seen.closed.length > 0) throw new Error(`${client.user} was closed: ${JSON.stringify(seen.closed)}`);
    return seen.established.length > 0;
  });
}

/** Waits until all of `users` have their audio established in the client's own list. */
export function together(client, users, seconds = 20) {
  return client.until(`${users.join(', ')} in its list of participants`, seconds, seen => {
    const there = seen.participants.filter(one => one.aestab === 1).map(one => one.userid);
    return there.length === users.length && users.every(user => there.includes(user));
  });
}

/** Frames by SSRC, audio samples and energy: what grows while media flows. */
export async function heard(client) {
  const stats = await client.stats();
  return {
    frames: new Map(ofKind(stats, 'video').map(row => [row.ssrc, row.framesDecoded ?? 0])),
    samples: sum(ofKind(stats, 'audio'), 'jitterBufferEmittedCount'),
    energy: sum(ofKind(stats, 'audio'), 'totalAudioEnergy'),
    keys: sum(ofKind(stats, 'video'), 'keyFramesDecoded'),
  };
}

/** What grew on a client within `seconds`: how many video streams decoded frames, samples and energy of audio. */
export async function growth(client, seconds = 3) {
  const before = await heard(client);
  await sleep(seconds);
  const after = await heard(client);
  return {
    videos: [...after.frames].filter(([ssrc, frames]) => frames > (before.frames.get(ssrc) ?? 0)).length,
    samples: after.samples - before.samples,
    energy: after.energy - before.energy,
  };
}

/** Waits until a client decodes `videos` streams of video at once and hears something. */
export async function media(client, videos, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  let grown;
  do {
    grown = await growth(client, 2);
    if (grown.videos >= videos && grown.samples > 0 && grown.energy > 0) return;
  } while (Date.now() < end);
  throw new Error(`${client.user}: within 2 s ${JSON.stringify(grown)}, wanted ${videos} videos, audio and its energy. ` +
    await client.evidence());
}

/** The transport: the node's one address and port, DTLS 1.2 as its client, AES-256-GCM. */
export async function transport(client) {
  const { transports } = await client.stats();
  const live = transports.filter(one => one.dtlsState === 'connected');
  assert.equal(live.length, 1, `${client.user}: one live transport, not ${JSON.stringify(transports)}`);
  assert.equal(live[0].srtpCipher, 'SRTP_AEAD_AES_256_GCM');
  assert.equal(live[0].tlsVersion, 'FEFD', 'DTLS 1.2');
  assert.equal(live[0].dtlsRole, 'client');
  assert.equal(live[0].remote.address, NODE_ADDRESS);
  assert.equal(live[0].remote.port, MEDIA_PORT);
}

/** The client's own log: it decrypted frames of both kinds, and its browser took our descriptions. */
export function log(client) {
  const text = client.text();
  for (const kind of ['audio', 'video']) {
    assert.match(text, new RegExp(`frame_dec: decrypt: first frame decrypted type: ${kind}`), `${client.user}'s log`);
  }
  assert.doesNotMatch(text, /setRemoteDescription failed|Access to fetch .* blocked/, `${client.user}'s log`);
}

/** Key frames came, and nothing broke in the page. */
export async function clean(client) {
  assert.ok((await heard(client)).keys > 0, `${client.user} decoded no key frame`);
  assert.deepEqual((await client.seen()).errors, [], `errors in ${client.user}'s page`);
}

/** Everything above, of clients who are all in one call. */
export async function call(clients) {
  for (const client of clients) await established(client);
  const users = clients.map(client => client.user);
  for (const client of clients) await together(client, users);
  for (const client of clients) await media(client, clients.length - 1);
  for (const client of clients) {
    await transport(client);
    log(client);
    await clean(client);
  }
}

/** Waits until as many legs are there and each brought a hundred packets. */
export async function flowing(service, wanted, seconds) {
  for (let left = seconds * 2; ; left -= 1) {
    const answer = service.sluice('legs');
    const legs = Array.isArray(answer) ? answer : answer.legs;
    if (legs.filter(one => one.fast + one.slow > 100).length >= wanted) return;
    assert.ok(left > 0, `after ${seconds} s: ${JSON.stringify(legs)}`);
    await sleep(0.5);
  }
}

/** All media came by the way that was asked for: over AF_XDP, or by the kernel's socket. */
export function path(service, io) {
  const status = service.sluice('status');
  const endpoints = Array.isArray(status) ? status : status.endpoints;
  const answer = service.sluice('legs');
  const legs = Array.isArray(answer) ? answer : answer.legs;
  const fast = sum(legs, 'fast');
  const slow = sum(legs, 'slow');
  const told = `${JSON.stringify(endpoints)}, ${fast} packets by AF_XDP, ${slow} by the kernel's socket`;
  if (io === 'xdp') {
    assert.ok(endpoints.every(one => one.mode.startsWith('xdp')), told);
    assert.ok(fast > 0 && slow <= 0.05 * fast, told);
  } else {
    assert.ok(endpoints.every(one => one.mode === 'udp'), told);
    assert.ok(slow > 0, told);
  }
}

/** Leaves and waits for the client's own word; 7 tells that the call goes on without it. */
export async function leave(client) {
  await client.leave();
  const seen = await client.until('the call to be closed', 10, now => now.closed.length > 0 && now);
  assert.ok([0, 7].includes(seen.closed[0].reason), `${client.user}: ${JSON.stringify(seen.closed)}`);
}
