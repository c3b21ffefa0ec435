// Wire's own client in plain Node: its signalling without media. Owns the three stubs that the client needs to load, and
// one that notes the offer it was given; several users live in one process.

import { external } from './external.mjs';
import { until } from './wait.mjs';

// The lab's certificate is made at start-up.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

/** Offers that the client handed to its browser, oldest first. */
const offers = [];

function stubBrowser() {
  globalThis.RTCRtpSender = class {};
  globalThis.RTCRtpSender.prototype.createEncodedStreams = () => ({});
  globalThis.Worker = class {
    postMessage() {}
  };
  URL.createObjectURL = () => 'blob:stub';
  globalThis.RTCPeerConnection = class {
    constructor() {
      this.signalingState = 'stable';
    }

    setRemoteDescription(description) {
      offers.push(description.sdp);
      // There is no browser: the client waits for it until its own time-out.
      return new Promise(() => {});
    }

    addTrack() {
      return {};
    }

    getTransceivers() {
      return [];
    }

    getSenders() {
      return [];
    }

    getStats() {
      return Promise.resolve(new Map());
    }

    close() {}
  };
}

let loaded;

async function load() {
  stubBrowser();
  const { ENV, getAvsInstance } = external('@wireapp/avs');
  const avs = await getAvsInstance();
  avs.setLogHandler(() => {});
  avs.init(ENV.DEFAULT);
  avs.setUserMediaHandler(() => new Promise(() => {}));
  setInterval(() => avs.poll(), 50).unref();
  return avs;
}

/** One user of the client. */
export class NodeClient {
  constructor(user, sft, credentials = {}) {
    Object.assign(this, { user, sft, credentials });
    this.requests = [];
    this.closed = [];
    this.ready = false;
  }

  async create() {
    loaded ??= load();
    this.avs = await loaded;
    const later = work => setTimeout(work, 0);
    const nothing = () => {};
    this.handle = this.avs.create(this.user, 'dev',
      () => {
        this.ready = true;
      },
      context => {
        later(() => this.avs.resp(this.handle, 200, '', context));
        return 0;
      },
      (context, url, data) => {
        later(() => this.post(context, url, data));
        return 0;
      },
      nothing, nothing, nothing, nothing,
      reason => this.closed.push(reason),
      nothing,
      () => {
        later(() => this.avs.configUpdate(this.handle, 0, JSON.stringify({
          ttl: 3600,
          ice_servers: [{ urls: ['turn:127.0.0.1:9'], username: 'nobody', credential: 'none' }],
          sft_servers: [{ urls: [this.sft] }],
          sft_servers_all: [{ urls: [this.sft], ...this.credentials }],
          is_federating: false,
        })));
        return 0;
      },
      nothing, nothing);
    await until(`${this.user} to be ready`, 10, () => this.ready);
    return this;
  }

  async post(context, url, data) {
    const entry = { url, text: data, sent: JSON.parse(data) };
    this.requests.push(entry);
    try {
      const response = await fetch(url, { method: 'POST', body: data, redirect: 'manual',
        headers: { 'Content-Type': 'application/x-www-form-urlencoded' } });
      const text = await response.text();
      this.avs.sftResp(this.handle, response.status, text, Buffer.byteLength(text), context);
      entry.answer = text.startsWith('{') ? JSON.parse(text) : text;
      entry.status = response.status;
    } catch (error) {
      entry.status = -1;
      entry.answer = String(error);
      this.avs.sftResp(this.handle, 1000, '', 0, context);
    }
  }

  /** Starts a conference; resolves with its first request once that was answered. */
  async start(conversation) {
    this.conversation = conversation;
    const failed = this.avs.start(this.handle, conversation, 0, 2, 1, 0);
    if (failed) throw new Error(`start failed with ${failed}`);
    await until(`${this.user}'s CONFCONN to be answered`, 10, () => this.requests[0]?.status !== undefined);
    return this.requests[0];
  }

  /** The offer as the client passed it on, once it did. */
  offer(from = 0) {
    return until(`${this.user}'s client to take the offer`, 10, () => offers[from]);
  }

  async reason() {
    await until(`${this.user}'s call to end`, 20, () => this.closed.length > 0);
    return this.closed[0];
  }

  end() {
    this.avs.end(this.handle, this.conversation);
    this.avs.destroy(this.handle);
  }
}

export const offersSoFar = () => offers.length;
