// Video under conditions: the full layer of a 1280x720 camera, and packets that get lost.

import assert from 'node:assert/strict';
import test from 'node:test';
import * as check from '../lib/checks.mjs';
import { lose, lost } from '../lib/impair.mjs';
import { scenario } from '../lib/lab.mjs';
import { sleep } from '../lib/wait.mjs';

const HIGH = 2;

test('layer h arrives within 10 s', { timeout: 180_000 }, t => scenario({ name: t.name, clients: 2 }, async lab => {
  const [alice, bob] = lab.clients;
  await alice.create({ answer: true, width: 1280, height: 720 });
  await bob.create({ answer: true, width: 320, height: 180, quality: HIGH });
  await alice.start();
  await check.established(bob);
  const before = Date.now();
  // l is half the size of h.
  await bob.until('frames of 1280x720', 20, (_seen, stats) =>
    stats.inbound.some(row => row.kind === 'video' && row.frameWidth === 1280 && row.framesDecoded > 0));
  const took = (Date.now() - before) / 1000;
  t.diagnostic(`h was there ${took.toFixed(1)} s after bob's call was established`);
  assert.ok(took <= 10, `it took ${took} s`);
  const { outbound } = await alice.stats();
  assert.ok(outbound.some(row => row.rid === 'h' && row.framesSent > 0), JSON.stringify(outbound));
  await check.call(lab.clients);
}));

test('2 % loss leaves no freeze over 500 ms', { timeout: 240_000 }, t => scenario({ name: t.name, clients: 2 }, async lab => {
  const [alice, bob] = lab.clients;
  await lab.create();
  await alice.start();
  await check.call(lab.clients);
  await sleep(5);
  lose(2);
  for (const client of lab.clients) await client.freezes(true);
  await sleep(30);
  const dropped = lost();
  for (const client of lab.clients) {
    const worst = await client.freezes();
    t.diagnostic(`${client.user}: longest freeze ${worst.seconds.toFixed(3)} s, ${worst.sampled} samples`);
    assert.ok(worst.sampled >= 60, `${client.user} was looked at only ${worst.sampled} times in 30 s`);
    assert.ok(worst.seconds <= 0.5, `${client.user} froze for ${worst.seconds} s. ${await client.evidence()}`);
    await check.media(client, 1);
  }
  t.diagnostic(`packets lost to the clients and to the node: ${dropped.join(', ')}`);
  assert.ok(dropped.length === 2 && dropped.every(count => count > 20), `lost: ${dropped}`);
  lose(0);
}));
