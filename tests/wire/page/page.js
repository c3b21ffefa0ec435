// One Wire client in one page. Owns the client's life, its media and what it saw; the test drives it by
// `window.client` and plays the messaging backend through `window.backendSend`. Judges nothing.

import { CALL_TYPE, CONV_TYPE, ENV, VIDEO_STATE, VSTREAMS, getAvsInstance } from '@wireapp/avs';
import { attach, localMedia } from './media.js';
import { freezes, sample, summary } from './stats.js';

const POLL_MS = 100;
const SAMPLE_MS = 250;

/** What the test gets to know without asking for statistics. */
const seen = {
  ready: false,
  incoming: [],
  answered: 0,
  established: [],
  closed: [],
  participants: [],
  quality: [],
  speakers: 0,
  videoStates: {},
  sft: [],
  errors: [],
};

let options;
let avs;
let handle;

window.addEventListener('error', event => seen.errors.push(String(event.message)));
window.addEventListener('unhandledrejection', event => seen.errors.push(String(event.reason)));

const later = work => setTimeout(work, 0);
const seconds = () => Math.floor(Date.now() / 1000);

/** The answer of the team's backend to "which servers are there": one SFT, and a TURN server that nobody runs. */
function callConfiguration() {
  const sft = { urls: [options.sft.url] };
  return JSON.stringify({
    ttl: 3600,
    ice_servers: [{ urls: ['turn:127.0.0.1:9'], username: 'nobody', credential: 'none' }],
    sft_servers: [sft],
    sft_servers_all: [{ ...sft, username: options.sft.username, credential: options.sft.credential }],
    is_federating: false,
  });
}

/** One signalling request; the client is told its outcome, the test its status and kinds of message. */
async function postToSft(context, url, data) {
  const sent = JSON.parse(data);
  const entry = { at: Date.now(), url, type: sent.type, resp: sent.resp, update: sent.update === true, status: 0 };
  seen.sft.push(entry);
  try {
    const response = await fetch(url, {
      method: 'POST',
      // As an axios string body; application/json makes the browser ask with OPTIONS first.
      headers: { 'Content-Type': options.sft.json ? 'application/json' : 'application/x-www-form-urlencoded' },
      body: data,
    });
    const text = await response.text();
    entry.status = response.status;
    entry.ms = Date.now() - entry.at;
    try {
      const answer = JSON.parse(text);
      entry.answer = answer.type;
      entry.answerStatus = answer.status;
      entry.answerUrl = answer.url;
      entry.offer = answer.sdp;
    } catch {
      entry.text = text.slice(0, 200);
    }
    entry.request = sent.sdp;
    avs.sftResp(handle, response.status, text, new TextEncoder().encode(text).length, context);
  } catch (error) {
    entry.error = String(error);
    avs.sftResp(handle, 1000, '', 0, context);
  }
}

/** Asks for the video of everybody who sends one, in one list: the client's request replaces the one before. */
function requestVideo(quality = options.quality) {
  const clients = Object.entries(seen.videoStates)
    .filter(([, state]) => state === VIDEO_STATE.STARTED)
    .map(([id]) => ({ userid: id.split('/')[0], clientid: id.split('/')[1], quality }));
  if (clients.length === 0) return 0;
  return avs.requestVideoStreams(handle, options.conversation, VSTREAMS.LIST,
    JSON.stringify({ convid: options.conversation, clients }));
}

function setHandlers() {
  avs.setParticipantChangedHandler(handle, (_conversation, json) => {
    seen.participants = JSON.parse(json).members;
  });
  avs.setActiveSpeakerHandler(handle, () => {
    seen.speakers += 1;
  });
  avs.setNetworkQualityHandler(handle, (_conversation, user, client, info) => {
    seen.quality.push({ at: Date.now(), user, client, info });
  }, 5);
  // Without the list of members nobody is authorised and no media flows.
  avs.setReqClientsHandler(handle, (_wuser, conversation) => later(() => {
    const clients = options.members.map(member => ({ ...member, in_subconv: true }));
    avs.setClientsForConv(handle, conversation, JSON.stringify({ convid: conversation, clients }));
  }));
}

function createUser() {
  return avs.create(
    options.user,
    options.device,
    () => {
      seen.ready = true;
    },
    (context, conversation, user, device, targets, _unused, data) => {
      later(async () => {
        await window.backendSend({ conversation, user, device, targets: targets ? JSON.parse(targets) : null, data });
        avs.resp(handle, 200, '', context);
      });
      return 0;
    },
    (context, url, data) => {
      later(() => postToSft(context, url, data));
      return 0;
    },
    (_conversation, _time, user, _device, video) => {
      seen.incoming.push({ at: Date.now(), user, video: video !== 0 });
      if (options.answer) later(() => join());
    },
    () => {},
    () => {
      seen.answered += 1;
    },
    (_conversation, user) => {
      seen.established.push({ at: Date.now(), user });
    },
    (reason, _conversation, _time, user) => {
      seen.closed.push({ at: Date.now(), reason, user });
    },
    () => {},
    () => {
      later(() => avs.configUpdate(handle, 0, callConfiguration()));
      return 0;
    },
    () => {},
    (_conversation, user, device, state) => {
      seen.videoStates[`${user}/${device}`] = state;
      if (state === VIDEO_STATE.STARTED && `${user}/${device}` !== `${options.user}/${options.device}`) {
        later(() => requestVideo());
      }
    },
  );
}

/** Loads the client and makes it a user; resolves once it is ready to call. */
async function create(given) {
  options = { device: 'dev', quality: 2, answer: false, width: 640, height: 360, video: true, ...given };
  avs = await getAvsInstance();
  avs.setLogHandler((level, text) => window.logged(level, text));
  const failed = avs.init(ENV.DEFAULT);
  if (failed) throw new Error(`the client's init failed with ${failed}`);
  avs.setUserMediaHandler((_conversation, audio, video) => localMedia(audio, video, options));
  avs.setAudioStreamHandler((_conversation, id, streams) => attach('audio', id, streams));
  avs.setVideoStreamHandler((_conversation, user, device, streams) => attach('video', `${user}/${device}`, streams));
  setInterval(() => avs.poll(), POLL_MS);
  handle = createUser();
  setHandlers();
  avs.setMute(handle, 0);
  setInterval(() => {
    if (seen.established.length > 0) sample(avs, options.conversation).catch(error => seen.errors.push(String(error)));
  }, SAMPLE_MS);
  for (let tries = 0; !seen.ready; tries++) {
    if (tries === 200) throw new Error('the client did not become ready within 10 s');
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}

const callType = () => (options.video ? CALL_TYPE.VIDEO : CALL_TYPE.NORMAL);

function start() {
  return avs.start(handle, options.conversation, callType(), CONV_TYPE.CONFERENCE, 1, 0);
}

function join() {
  return avs.answer(handle, options.conversation, callType(), 1);
}

function leave() {
  avs.end(handle, options.conversation);
}

/** A message of the backend: what another member's client sent. */
function deliver({ conversation, user, device, data, time }) {
  return avs.recvMsg(handle, data, data.length, seconds(), time, conversation, user, device, CONV_TYPE.CONFERENCE, 0);
}

window.client = {
  create,
  start,
  join,
  leave,
  deliver,
  requestVideo,
  mute: muted => avs.setMute(handle, muted ? 1 : 0),
  seen: () => seen,
  stats: () => summary(avs, options.conversation),
  freezes,
};
