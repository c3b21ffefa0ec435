// Calls that survive: a control plane that stands still, a forwarder that is killed, a client that is seen from another
// port all at once.

import assert from 'node:assert/strict';
import test from 'node:test';
import * as check from '../lib/checks.mjs';
import { translate } from '../lib/impair.mjs';
import { scenario } from '../lib/lab.mjs';
import { sleep, until } from '../lib/wait.mjs';

const reconnects = seen => seen.sft.filter(one => one.type === 'CONFCONN' && one.update);

test('unanswered PINGs: the clients come again by themselves', { timeout: 300_000 }, t =>
  scenario({ name: t.name, clients: 2 }, async lab => {
    const [alice, bob] = lab.clients;
    await lab.create();
    await alice.start();
    await check.call(lab.clients);
    lab.service.control.signal('SIGSTOP');
    // Media needs nobody but the forwarder.
    await sleep(10);
    for (const client of lab.clients) await check.media(client, 1);
    // More than four unanswered, one in 5 s. Control stands still until all have had enough: who has not is answered
    // at once when it goes on, and has no reason to come again.
    await until('the clients to reconnect', 40, async () =>
      (await Promise.all(lab.clients.map(client => client.seen()))).every(seen => reconnects(seen).length > 0));
    lab.service.control.signal('SIGCONT');
    for (const client of lab.clients) {
      const seen = await client.until('its reconnect to be answered', 30, now =>
        reconnects(now).some(one => one.status > 0) && now);
      const [first] = reconnects(seen);
      assert.equal(first.status, 200, JSON.stringify(first));
      assert.ok(['SETUP', 'UPDATE'].includes(first.answer), JSON.stringify(first));
    }
    for (const client of lab.clients) {
      await check.together(client, ['alice', 'bob'], 30);
      await check.media(client, 1, 30);
      assert.deepEqual((await client.seen()).closed, []);
    }
  }));

test('a forwarder killed mid-call: video in layers goes on', { timeout: 240_000 }, t =>
  scenario({ name: t.name, clients: 2 }, async lab => {
    const [alice, bob] = lab.clients;
    await alice.create({ answer: true, width: 1280, height: 720 });
    await bob.create({ answer: true, width: 320, height: 180, quality: 2 });
    await alice.start();
    await check.call(lab.clients);
    const full = stats => stats.inbound.filter(row => row.kind === 'video' && row.frameWidth === 1280)
      .reduce((frames, row) => frames + row.framesDecoded, 0);
    await bob.until('frames of 1280x720', 20, (_seen, stats) => full(stats) > 0);
    // Browsers name their rids until the first receiver report; that is long ago by then.
    await sleep(5);
    const learned = () => lab.service.sluice('streams').ingress.filter(row => row.learned).map(row => row.ssrc).sort();
    const before = learned();
    assert.ok(before.length >= 2, JSON.stringify(before));
    for (let kill = 1; kill <= 2; kill++) {
      await lab.service.killForwarder();
      const killed = Date.now();
      const known = full(await bob.stats());
      lab.service.startForwarder();
      for (const client of lab.clients) await check.media(client, 1, 30);
      await bob.until('frames of 1280x720 again', 20, (_seen, stats) => full(stats) > known + 30);
      t.diagnostic(`kill ${kill}: 30 more frames of layer h after ${((Date.now() - killed) / 1000).toFixed(1)} s`);
      assert.deepEqual(learned().filter(ssrc => !before.includes(ssrc)), [], 'the same streams');
      for (const client of lab.clients) {
        const seen = await client.seen();
        assert.deepEqual(seen.closed, []);
        assert.equal(reconnects(seen).length, 0, 'nobody had to reconnect');
      }
    }
    for (const client of lab.clients) await check.transport(client);
  }));

test('a source port that changes mid-call', { timeout: 240_000 }, t =>
  scenario({ name: t.name, clients: 2 }, async lab => {
    const [alice, bob] = lab.clients;
    translate(alice.number, 40_001);
    await lab.create();
    await alice.start();
    await check.call(lab.clients);
    const before = await alice.stats();
    translate(alice.number, 40_002);
    const moved = Date.now();
    // Both ways, and soon: the next packet of hers already comes from the new port.
    for (const client of lab.clients) await check.media(client, 1, 10);
    t.diagnostic(`media flowed both ways again ${((Date.now() - moved) / 1000).toFixed(1)} s after the change at the latest`);
    for (const client of lab.clients) {
      const seen = await client.seen();
      assert.deepEqual(seen.closed, []);
      assert.equal(reconnects(seen).length, 0, 'nobody had to reconnect');
      assert.equal(seen.established.length, 1);
    }
    // The same connection: the browser's counters go on.
    const after = await alice.stats();
    assert.ok(after.transports[0].packetsReceived > before.transports[0].packetsReceived);
    await check.transport(alice);
  }));
