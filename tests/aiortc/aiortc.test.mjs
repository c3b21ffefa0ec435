// aiortc over the signalling of Wire's clients: no simulcast, no end-to-end encryption, other libraries for everything.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import * as check from '../wire/lib/checks.mjs';
import { cache } from '../wire/lib/external.mjs';
import { scenario } from '../wire/lib/lab.mjs';
import { clientNamespace, inside } from '../wire/lib/namespaces.mjs';
import { sleep } from '../wire/lib/wait.mjs';

const CONVERSATION = '5eed5eed5eed5eed5eed5eed5eed5eed';
const PEER = path.join(path.dirname(fileURLToPath(import.meta.url)), 'peer.py');
// A lossy codec moves a shade a little.
const NEAR = 12;

/** Runs one participant in the namespace of client `number`; resolves with what it told. */
function participant(lab, number, { user, shade, hertz, seconds }) {
  const line = inside(clientNamespace(number), path.join(cache, 'python/bin/python'), '-B', PEER, '--url', lab.service.url,
    '--conversation', CONVERSATION, '--user', user, '--shade', String(shade), '--hertz', String(hertz),
    '--seconds', String(seconds));
  const child = spawn(line[0], line.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  child.stdout.on('data', data => {
    out += data;
  });
  const log = path.join(lab.directory, `${user}.log`);
  child.stderr.on('data', data => appendFileSync(log, data));
  return new Promise((resolve, reject) => child.on('close', code => {
    appendFileSync(log, out);
    try {
      const told = JSON.parse(out);
      if (told.error) reject(new Error(`${user}: ${told.error}`));
      else resolve(told);
    } catch {
      reject(new Error(`${user} ended with ${code} and told nothing; see its log`));
    }
  }));
}

function judge(told, shades) {
  const what = JSON.stringify({ ...told, offer: undefined, answer: undefined });
  assert.deepEqual(told.statuses, [200, 200]);
  assert.equal(told.channel, 'calling-3.0');
  assert.equal(told.state, 'connected', what);
  assert.deepEqual(told.profiles, ['SRTP_AEAD_AES_256_GCM']);
  assert.ok(told.pongs >= 2, what);
  assert.ok(told.hangup, 'HANGUP is answered');
  const videos = told.received.filter(one => one.kind === 'video' && one.frames > 20);
  assert.equal(videos.length, shades.length, what);
  for (const shade of shades) {
    assert.ok(videos.some(one => Math.abs(one.shade - shade) <= NEAR), `nobody of shade ${shade} was seen: ${what}`);
  }
  for (const one of videos) assert.deepEqual(one.size, [320, 180]);
  assert.ok(told.received.some(one => one.kind === 'audio' && one.frames > 100 && one.loudest > 2000), what);
}

for (const io of ['xdp', 'udp']) {
  test(`aiortc: three participants over ${io}`, { timeout: 120_000 }, t =>
    scenario({ name: t.name, io, clients: 3 }, async lab => {
      const people = [['a'.repeat(32), 60, 440], ['b'.repeat(32), 120, 660], ['c'.repeat(32), 200, 880]];
      const running = [];
      for (const [at, [user, shade, hertz]] of people.entries()) {
        running.push(participant(lab, at + 1, { user, shade, hertz, seconds: 20 - 2 * at }));
        await sleep(1);
      }
      await check.flowing(lab.service, 3, 60);
      check.path(lab.service, io);
      const told = await Promise.all(running);
      for (const [at, one] of told.entries()) {
        judge(one, people.filter((_, other) => other !== at).map(([, shade]) => shade));
      }
      // In the order they came, and everybody saw everybody.
      for (const one of told) {
        assert.ok(one.parts.some(list => list.join() === people.map(([user]) => user).join()), JSON.stringify(one.parts));
      }
      // The last to stay saw the others leave.
      assert.deepEqual(told[0].parts.at(-1), [people[0][0]]);
    }));
}
