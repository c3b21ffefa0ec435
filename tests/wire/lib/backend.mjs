// The team's messaging backend, as far as calls need it: hands what one client sends to the others, keeps the newest
// announcement of a running call for those who come later. Knows nothing of SFTs.

const ANNOUNCES = new Set(['CONFSTART', 'CONFCHECK']);

export class Backend {
  constructor() {
    this.pages = new Map();
    this.announcements = new Map();
    this.sent = [];
  }

  /** A client that listens from now on: `deliver` gets one message. */
  async add(user, deliver) {
    this.pages.set(user, deliver);
    for (const message of this.announcements.values()) if (message.user !== user) await deliver(message);
  }

  remove(user) {
    this.pages.delete(user);
  }

  /** A client's message: { conversation, user, device, targets, data }. */
  async send({ targets, ...rest }) {
    const message = { ...rest, time: Math.floor(Date.now() / 1000) };
    const { type } = JSON.parse(message.data);
    this.sent.push({ at: Date.now(), user: message.user, type });
    if (ANNOUNCES.has(type)) this.announcements.set(message.conversation, message);
    if (type === 'CONFEND') this.announcements.delete(message.conversation);
    const wanted = targets && new Set(targets.clients.map(one => one.userid));
    for (const [user, deliver] of this.pages) {
      // A page may be gone: to the sender that is no error, as with a real backend.
      if (user !== message.user && (!wanted || wanted.has(user))) await deliver(message).catch(() => {});
    }
  }
}
