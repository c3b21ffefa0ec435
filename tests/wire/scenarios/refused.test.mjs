// Clients that are not let in: tokens, and a node that drains.

import assert from 'node:assert/strict';
import test from 'node:test';
import * as check from '../lib/checks.mjs';
import { token } from '../lib/configuration.mjs';
import { scenario } from '../lib/lab.mjs';

const AUTH_FAILED = 14;
const AUTH_FAILED_START = 15;

test('tokens: wrong, expired, of one who may only join, right', { timeout: 240_000 }, t =>
  scenario({ name: t.name, clients: 1, tokens: true }, async lab => {
    const [alice] = lab.clients;
    const refused = [
      [AUTH_FAILED, 'none at all', {}],
      [AUTH_FAILED, 'wrong', token({ secret: 'another secret' })],
      [AUTH_FAILED, 'expired', token({ seconds: -60 })],
      [AUTH_FAILED_START, 'may only join', token({ start: false })],
    ];
    for (const [reason, what, credentials] of refused) {
      lab.service.credentials = credentials;
      await alice.create();
      await alice.start();
      const seen = await alice.until(`to be refused (${what})`, 15, now => now.closed.length > 0 && now);
      assert.equal(seen.closed[0].reason, reason, what);
      assert.deepEqual(seen.established, [], what);
      await alice.close();
    }
    lab.service.credentials = token();
    await alice.create();
    await alice.start();
    await check.established(alice);
  }));

test('draining: new calls are sent elsewhere, running ones go on', { timeout: 240_000 }, t =>
  scenario({ name: t.name, clients: 3 }, async lab => {
    const [alice, bob, carol] = lab.clients;
    await lab.create({}, 0, 2);
    await alice.start();
    await check.call([alice, bob]);
    lab.service.drain();
    await carol.create({ conversation: '77777777-0000-4000-8000-00000000c0de' });
    await carol.start();
    const seen = await carol.until('an answer to its CONFCONN', 15, now => now.sft.some(one => one.status > 0) && now);
    assert.equal(seen.sft[0].status, 303, JSON.stringify(seen.sft[0]));
    assert.deepEqual(seen.established, []);
    for (const client of [alice, bob]) await check.media(client, 1);
  }));
