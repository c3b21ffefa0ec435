// The contract with Wire's own client, without a browser: what it sends is accepted, what it gets it understands.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { token } from '../lib/configuration.mjs';
import { loopback } from '../lib/loopback.mjs';
import { NodeClient, offersSoFar } from '../lib/nodeclient.mjs';

const OUTDATED_CLIENT = 11;
const AUTH_FAILED = 14;
const AUTH_FAILED_START = 15;

let lab;
let users = 0;
const user = credentials => new NodeClient(`user${++users}`, lab.service.url, credentials).create();
const conversation = () => `00000000-0000-4000-8000-${String(++users).padStart(12, '0')}`;

async function end() {
  const reasons = await lab.close();
  lab = undefined;
  assert.deepEqual(reasons, []);
}

// The service is started anew by the tests that configure it otherwise.
before(async () => {
  lab = await loopback();
});
after(async () => {
  if (lab) await end();
});

test('a CONFCONN is answered with a SETUP that the client takes', { timeout: 60_000 }, async () => {
  const client = await user();
  const from = offersSoFar();
  const request = await client.start(conversation());
  assert.equal(request.sent.type, 'CONFCONN');
  assert.equal(request.status, 200);
  const setup = request.answer;
  assert.equal(setup.version, '3.0');
  assert.equal(setup.type, 'SETUP');
  assert.equal(setup.resp, false);
  assert.equal(setup.sessid, request.sent.sessid);
  assert.equal(setup.url, lab.service.url);
  assert.equal(typeof setup.props, 'object');
  const { sdp } = setup;
  assert.match(sdp, /^a=tool:sftd [5-9]\.\d/m, 'selective streams are asked for by version');
  assert.match(sdp, /^a=setup:actpass\r$/m);
  assert.match(sdp, /^a=ice-options:.*trickle/m);
  assert.match(sdp, /^a=candidate:.* 127\.0\.0\.1 13480 typ host/m);
  assert.match(sdp, /^a=rid:l recv\r$/m);
  assert.match(sdp, /^a=simulcast:recv l;h\r$/m);
  const sections = sdp.split(/^(?=m=)/m).slice(1);
  const sendonly = kind => sections.filter(one => one.startsWith(`m=${kind}`) && /^a=sendonly\r$/m.test(one));
  assert.equal(sendonly('audio').length, 5);
  assert.equal(sendonly('video').length, request.sent.vstreams);
  const labels = sections.flatMap(one => [...one.matchAll(/^a=ssrc:\d+ msid:(\S+)/gm)].map(match => match[1]));
  for (const one of [...sendonly('audio'), ...sendonly('video')]) {
    const [, label] = /^a=ssrc:\d+ msid:(\S+)/m.exec(one) ?? [];
    assert.ok(label, `no label in ${one}`);
  }
  assert.ok(new Set(labels).size >= 5 + request.sent.vstreams, 'a label per line');
  const taken = await client.offer(from);
  assert.match(taken, /^m=audio/m);
  assert.deepEqual(client.closed, []);
  client.end();
});

test('two clients of one conference both get an offer of their own', { timeout: 60_000 }, async () => {
  const where = conversation();
  const [one, two] = [await user(), await user()];
  const first = await one.start(where);
  const second = await two.start(where);
  assert.notEqual(first.answer.sdp, second.answer.sdp);
  const ufrag = sdp => /^a=ice-ufrag:(\S+)/m.exec(sdp)[1];
  assert.notEqual(ufrag(first.answer.sdp), ufrag(second.answer.sdp));
  one.end();
  two.end();
});

test('a blacklisted release is told that it is outdated', { timeout: 60_000 }, async () => {
  await end();
  lab = await loopback({ blacklist: '<99.0.0' });
  const client = await user();
  const request = await client.start(conversation());
  assert.equal(request.status, 200);
  assert.deepEqual([request.answer.type, request.answer.resp, request.answer.status], ['CONFCONN', false, 1]);
  assert.equal(await client.reason(), OUTDATED_CLIENT);
});

test('tokens: each way to be refused has its status and its reason', { timeout: 120_000 }, async () => {
  await end();
  lab = await loopback({ tokens: true });
  const refused = [
    [{}, 2, AUTH_FAILED],
    [token({ secret: 'another' }), 2, AUTH_FAILED],
    [token({ seconds: -5 }), 3, AUTH_FAILED],
    [token({ start: false }), 5, AUTH_FAILED_START],
  ];
  for (const [credentials, status, reason] of refused) {
    const client = await user(credentials);
    const request = await client.start(conversation());
    assert.equal(request.status, 200);
    assert.equal(request.answer.status, status, JSON.stringify(request.answer));
    assert.equal(await client.reason(), reason);
  }
  const client = await user(token());
  assert.equal((await client.start(conversation())).answer.type, 'SETUP');
  client.end();
});

test('a node that drains says 303 to a new call', { timeout: 60_000 }, async () => {
  await end();
  lab = await loopback();
  lab.service.drain();
  const client = await user();
  const request = await client.start(conversation());
  assert.equal(request.status, 303, JSON.stringify(request.answer));
});
