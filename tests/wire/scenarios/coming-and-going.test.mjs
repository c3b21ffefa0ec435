// People who come late, hang up, or vanish.

import assert from 'node:assert/strict';
import test from 'node:test';
import * as check from '../lib/checks.mjs';
import { scenario } from '../lib/lab.mjs';
import { sleep } from '../lib/wait.mjs';

// Three browsers share few cores; it is still enough for both layers.
const SMALL = { width: 480, height: 270 };

test('a late join', { timeout: 240_000 }, t => scenario({ name: t.name, clients: 3 }, async lab => {
  const [alice, bob, carol] = lab.clients;
  await lab.create(SMALL, 0, 2);
  await alice.start();
  await check.call([alice, bob]);
  await sleep(5);
  // The backend hands her the call's announcement as soon as she listens.
  await carol.create({ answer: true, ...SMALL });
  await carol.until('the call to ring', 10, seen => seen.incoming.length > 0);
  await check.call([alice, bob, carol]);
}));

test('a hang-up', { timeout: 240_000 }, t => scenario({ name: t.name, clients: 3 }, async lab => {
  const [alice, bob, carol] = lab.clients;
  await lab.create(SMALL);
  await alice.start();
  await check.call(lab.clients);
  await check.leave(bob);
  for (const client of [alice, carol]) {
    await client.until('bob to be gone from its list', 5, seen =>
      !seen.participants.some(one => one.userid === 'bob' && one.aestab === 1));
    await check.media(client, 1);
    assert.deepEqual((await client.seen()).closed, []);
  }
  // He may come back.
  await bob.join();
  await check.together(bob, ['alice', 'bob', 'carol']);
  await check.media(bob, 2);
  await check.media(alice, 2);
}));

test('a client killed', { timeout: 240_000 }, t => scenario({ name: t.name, clients: 3 }, async lab => {
  const [alice, bob, carol] = lab.clients;
  await lab.create(SMALL);
  await alice.start();
  await check.call(lab.clients);
  // Nothing of her end reaches the node, not even what a dying browser would send.
  lab.cutOff(carol);
  await carol.kill();
  for (const client of [alice, bob]) {
    await client.until('to be told that carol is gone', 25, seen =>
      !seen.participants.some(one => one.userid === 'carol' && one.aestab === 1));
  }
  for (const client of [alice, bob]) {
    await check.media(client, 1);
    assert.deepEqual((await client.seen()).closed, []);
  }
}));
