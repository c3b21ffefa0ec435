// Calls that go as they should: two and four clients, over AF_XDP and over sockets.

import test from 'node:test';
import * as check from '../lib/checks.mjs';
import { scenario } from '../lib/lab.mjs';

async function everybody(lab, io, options) {
  await lab.create(options);
  await lab.clients[0].start();
  await check.call(lab.clients);
  check.path(lab.service, io);
  for (const client of [...lab.clients].reverse()) await check.leave(client);
}

for (const io of ['xdp', 'udp']) {
  test(`two clients over ${io}`, { timeout: 180_000 }, t =>
    scenario({ name: t.name, io, clients: 2 }, lab => everybody(lab, io)));
}

test('four clients over xdp', { timeout: 300_000 }, t =>
  scenario({ name: t.name, io: 'xdp', clients: 4 }, lab => everybody(lab, 'xdp', { width: 480, height: 270 })));
