// The door itself: what is asked for wrongly is refused with the status that clients and operators know.

import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { loopback } from '../lib/loopback.mjs';

process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const CONVERSATION = '0123456789abcdef0123456789abcdef';
const CONFCONN = {
  version: '3.0', type: 'CONFCONN', sessid: CONVERSATION, src_userid: 'dc15687bd1c356eb0ea2a7dd2c2b6ccd', src_clientid: '_',
  dest_userid: 'SFT', dest_clientid: '_', resp: false, ice_servers: [], update: false, tool: 'test', toolver: '10.5.8',
  env: 0, status: 0, selective_audio: true, selective_video: true, vstreams: 9,
};

let lab;
before(async () => {
  lab = await loopback();
});
after(async () => {
  if (lab) assert.deepEqual(await lab.close(), []);
});

async function ask(path, { method = 'POST', body, headers } = {}) {
  const response = await fetch(`${lab.service.url}${path}`, { method, body, headers, redirect: 'manual' });
  return { status: response.status, headers: response.headers, text: await response.text() };
}
const post = (body, path = `/sft/${CONVERSATION}`) => ask(path, { body: typeof body === 'string' ? body : JSON.stringify(body) });

test('status and url', async () => {
  assert.equal((await ask('/sft/status', { method: 'GET' })).status, 200);
  const url = await ask('/sft/url', { method: 'GET' });
  assert.equal(url.status, 200);
  assert.equal(url.text.trim(), lab.service.url);
});

test('the list of servers', async () => {
  const list = await ask('/sft_servers_all.json', { method: 'GET' });
  assert.equal(list.status, 200);
  assert.match(list.text, new RegExp(lab.service.url.replaceAll('.', '\\.')));
  JSON.parse(list.text);
});

test('any prefix ending in /sft/CONVID', async () => {
  for (const prefix of ['/sft', '/sfts/sftd-0/sft']) {
    const answer = await post(CONFCONN, `${prefix}/${CONVERSATION}`);
    assert.equal(answer.status, 200, prefix);
    assert.equal(JSON.parse(answer.text).type, 'SETUP', prefix);
  }
});

test('another origin may ask, and may ask first', async () => {
  const preflight = await ask(`/sft/${CONVERSATION}`, { method: 'OPTIONS', headers: {
    origin: 'https://client.test', 'access-control-request-method': 'POST', 'access-control-request-headers': 'content-type' } });
  assert.ok([200, 204].includes(preflight.status));
  assert.match(preflight.headers.get('access-control-allow-origin') ?? '', /^(\*|https:\/\/client\.test)$/);
  assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /content-type|\*/i);
  const answer = await ask(`/sft/${CONVERSATION}`, { body: JSON.stringify(CONFCONN), headers: { origin: 'https://client.test' } });
  assert.match(answer.headers.get('access-control-allow-origin') ?? '', /^(\*|https:\/\/client\.test)$/);
});

const bad = {
  'no body': '',
  'no JSON': 'hello',
  'half of a message': JSON.stringify(CONFCONN).slice(0, 60),
  'no object': '[]',
  'null': 'null',
  'a deep array': '['.repeat(50_000),
  'another version': { ...CONFCONN, version: '2.0' },
  'no version': { ...CONFCONN, version: undefined },
  'an unknown type': { ...CONFCONN, type: 'NOPE' },
  'a type of the channel': { ...CONFCONN, type: 'PING' },
  'no sender': { ...CONFCONN, src_userid: undefined },
  'a number for a text': { ...CONFCONN, sessid: 7 },
  'SETUP before CONFCONN': { ...CONFCONN, type: 'SETUP', resp: true, sdp: 'v=0\r\n', props: {}, src_userid: 'f'.repeat(32) },
};
for (const [what, body] of Object.entries(bad)) {
  test(`bad request: ${what}`, async () => {
    const answer = await post(body);
    assert.equal(answer.status, 400, answer.text.slice(0, 200));
  });
}

test('bad request: an answer that is no description', async () => {
  const conversation = 'aa23456789abcdef0123456789abcdef';
  assert.equal((await post({ ...CONFCONN, sessid: conversation }, `/sft/${conversation}`)).status, 200);
  for (const sdp of ['', 'garbage', 'v=0\r\nm=audio\r\n']) {
    const setup = { ...CONFCONN, sessid: conversation, type: 'SETUP', resp: true, sdp, props: {} };
    const answer = await post(setup, `/sft/${conversation}`);
    assert.equal(answer.status, 400, `${JSON.stringify(sdp)}: ${answer.text}`);
  }
});

test('bad request: SETUP that is no answer', async () => {
  const conversation = 'ab23456789abcdef0123456789abcdef';
  await post({ ...CONFCONN, sessid: conversation }, `/sft/${conversation}`);
  const setup = { ...CONFCONN, sessid: conversation, type: 'SETUP', resp: false, sdp: 'v=0\r\n', props: {} };
  assert.equal((await post(setup, `/sft/${conversation}`)).status, 400);
});

test('a body over the limit', async () => {
  assert.equal((await post({ ...CONFCONN, tool: 'x'.repeat(300_000) })).status, 413);
});

test('paths and methods that are not served', async () => {
  for (const path of ['/', '/sft', '/sft/', '/nothing/here', '/metrics']) {
    const { status } = await post(CONFCONN, path);
    assert.ok([400, 404].includes(status), `${path}: ${status}`);
  }
  for (const method of ['GET', 'PUT', 'DELETE']) {
    const { status } = await ask(`/sft/${CONVERSATION}`, { method });
    assert.ok([400, 404, 405].includes(status), `${method}: ${status}`);
  }
});

test('after all that it still serves', async () => {
  const answer = await post({ ...CONFCONN, src_userid: 'e'.repeat(32) });
  assert.equal(answer.status, 200);
  assert.equal(JSON.parse(answer.text).type, 'SETUP');
});
