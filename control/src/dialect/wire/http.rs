//! Requests of the public listener: new calls, answers, and what tools ask.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;

use super::allocation::Origin;
use super::answer::AnswerError;
use super::blacklist::major;
use super::call::{Bucket, Call, Stage, Streams, User};
use super::capacity::Pools;
use super::counters::Reason;
use super::describe::describe;
use super::machine::Turn;
use super::message::{Message, is_id};
use super::reply::{self, ConnStatus};
use super::room::Room;
use super::token::{self, TokenError};
use super::{Action, RequestId, Wire, answer};
use crate::conference::{self, Conference, ParticipantId};
use crate::sdp::SdpError;
use crate::transport::Credentials;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Video streams a client may ask for at most.
const MOST_VIDEO: u64 = 32;

/// What a path names.
enum Resource<'a> {
    Conference(&'a str),
    Status,
    Url,
    Servers,
}

/// A client that may come in.
struct Admitted {
    /// Name of its token, if it has one.
    token: Option<String>,
    /// Its token alone would not have let it in; it comes back to a call of an earlier process.
    resumed: bool,
}

/// A reply with an HTTP status that is not 200, and why.
struct Refused {
    status: u16,
    reason: Reason,
    text: String,
}

impl Refused {
    fn bad(reason: Reason, text: impl Into<String>) -> Refused {
        Refused { status: 400, reason, text: text.into() }
    }
}

impl Wire {
    /// Handles a request; always replies.
    pub(super) fn http(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        method: &Method,
        path: &str,
        body: &[u8],
        client: IpAddr,
    ) {
        let result = self.route(turn, method, path, body, client);
        let (status, content_type, body, location) = match result {
            Ok((content_type, body)) => (200, content_type, body, None),
            Err(Refused { status, reason, text }) => {
                self.counters.count(reason);
                let location = if status == 303 { self.redirected(path) } else { None };
                (status, TEXT, text + "\n", location)
            }
        };
        turn.actions.push(Action::Reply { request, status, content_type, body, location });
    }

    /// Where a new call goes while draining.
    fn redirected(&self, path: &str) -> Option<String> {
        let base = self.config.redirect.as_ref()?;
        let convid = path.rsplit('/').next().unwrap_or_default();
        let plain = convid.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        plain.then(|| format!("{}/sft/{convid}", base.trim_end_matches('/')))
    }

    fn route(
        &mut self,
        turn: &mut Turn<'_>,
        method: &Method,
        path: &str,
        body: &[u8],
        client: IpAddr,
    ) -> Result<(&'static str, String), Refused> {
        let resource = resource(path).ok_or_else(|| Refused {
            status: 404,
            reason: Reason::NotFound,
            text: "nothing here; conferences are at .../sft/ID".to_owned(),
        })?;
        let get = method == Method::GET || method == Method::HEAD;
        let allowed = match resource {
            Resource::Conference(_) => method == Method::POST,
            Resource::Status | Resource::Url => get || method == Method::POST,
            Resource::Servers => get,
        };
        if !allowed {
            let text = format!("{method} is not taken here");
            return Err(Refused { status: 405, reason: Reason::Method, text });
        }
        match resource {
            Resource::Status => Ok((TEXT, "Debug\n".to_owned())),
            Resource::Url => Ok((TEXT, format!("{}\r\n", self.config.public_url))),
            Resource::Servers => {
                let own = std::slice::from_ref(&self.config.public_url);
                let urls = if self.config.servers.is_empty() { own } else { &self.config.servers };
                Ok((JSON, reply::servers(urls)))
            }
            Resource::Conference(convid) => self.conference(turn, convid, body, client).map(|body| (JSON, body)),
        }
    }

    fn conference(
        &mut self,
        turn: &mut Turn<'_>,
        convid: &str,
        body: &[u8],
        client: IpAddr,
    ) -> Result<String, Refused> {
        let message = Message::read(body).map_err(|e| Refused::bad(Reason::Malformed, e.to_string()))?;
        if message.sessid != convid {
            return Err(Refused::bad(Reason::Session, "sessid and the conference of the path differ"));
        }
        let (user, device) = message.sender().map_err(|e| Refused::bad(Reason::Malformed, e.to_string()))?;
        let user = User::new(user, device);
        match (message.kind.as_str(), message.resp) {
            ("CONFCONN", false) => self.confconn(turn, convid, user, &message, client),
            ("SETUP" | "UPDATE", true) => self.setup(turn, convid, &user, &message),
            ("SETUP" | "UPDATE", false) => Err(Refused::bad(Reason::Unexpected, "offers are made here; answer one")),
            _ => Err(Refused::bad(Reason::Unexpected, "expected CONFCONN, or a response to SETUP or UPDATE")),
        }
    }

    /// A client wants to start or join, or comes back.
    fn confconn(
        &mut self,
        turn: &mut Turn<'_>,
        convid: &str,
        user: User,
        message: &Message<'_>,
        client: IpAddr,
    ) -> Result<String, Refused> {
        let room = self.rooms.get_key_value(convid).map(|(key, room)| (key.clone(), room));
        let returning = room.as_ref().is_some_and(|(_, room)| room.users.contains_key(&user));
        if self.draining && !returning {
            let text = "this server takes no new calls; ask another one".to_owned();
            return Err(Refused { status: 303, reason: Reason::Draining, text });
        }
        if !self.available {
            let text = "media cannot be set up here right now; ask again in a moment".to_owned();
            return Err(Refused { status: 503, reason: Reason::NotReady, text });
        }
        let refuse = |wire: &mut Wire, reason, status| {
            wire.counters.count(reason);
            Ok(reply::confconn(convid, status))
        };
        let version = message.toolver.as_str().unwrap_or_default();
        if self.config.blacklist.refuses(version) {
            return refuse(self, Reason::Blacklisted, ConnStatus::Blacklisted);
        }
        let resumes = message.update.0 && self.resumes.is_some_and(|until| turn.now < until);
        let origin = match self.admit(turn, message, room.is_some(), returning, resumes) {
            Ok(Admitted { token, resumed }) => {
                self.counters.resumed += u64::from(resumed);
                token.map_or_else(|| Origin::net(client), Origin::Token)
            }
            Err((reason, status)) => return refuse(self, reason, status),
        };
        if !returning && room.as_ref().is_some_and(|(_, room)| room.core.is_full()) {
            return refuse(self, Reason::ConferenceFull, ConnStatus::AuthLimit);
        }
        // Allocations have limits of their own, and nobody can fill the server with them alone.
        let unused = self.allocations.len();
        let limits = &self.config.limits;
        if !returning
            && (self.calls.len().saturating_sub(unused) >= limits.participants
                || (room.is_none() && self.rooms.len().saturating_sub(unused) >= limits.conferences))
        {
            return refuse(self, Reason::ServerFull, ConnStatus::AuthLimit);
        }
        let (videos, simulcast) = wanted(message, limits.video_slots);
        let more = Pools::expected(limits.conference.audio_slots, videos, simulcast);
        if !returning && self.lacks(&more) {
            return refuse(self, Reason::ForwarderFull, ConnStatus::AuthLimit);
        }
        if message.sft_url.as_str().is_some() || message.sft_tuple.as_str().is_some() {
            self.counters.count(Reason::Federation);
        }
        let key = room.map_or_else(|| Arc::from(convid), |(key, _)| key);
        Ok(self.allocate(turn, key, user, message, client, origin))
    }

    /// The token's name if the client may come in.
    fn admit(
        &self,
        turn: &Turn<'_>,
        message: &Message<'_>,
        exists: bool,
        returning: bool,
        resumes: bool,
    ) -> Result<Admitted, (Reason, ConnStatus)> {
        let nobody = Admitted { token: None, resumed: false };
        let Some(secret) = &self.config.tokens else { return Ok(nobody) };
        let (Some(username), Some(credential)) = (message.username.as_str(), message.credential.as_str()) else {
            let none = message.username.as_str().is_none() && message.credential.as_str().is_none();
            if none && !self.config.tokens_required {
                return Ok(nobody);
            }
            return Err((Reason::TokenInvalid, ConnStatus::AuthInvalid));
        };
        let mut resumed = false;
        let grant = match token::check(secret, username, credential, turn.wall / 1_000) {
            Ok(grant) => grant,
            // A call outlives its token; coming back to it needs no new one.
            Err(TokenError::Expired(grant)) if returning => grant,
            Err(TokenError::Expired(grant)) if resumes => {
                resumed = true;
                grant
            }
            Err(TokenError::Expired(_)) => return Err((Reason::TokenExpired, ConnStatus::AuthExpired)),
            Err(TokenError::Invalid) => return Err((Reason::TokenInvalid, ConnStatus::AuthInvalid)),
        };
        if !grant.may_start && !exists {
            if !resumes {
                return Err((Reason::TokenCannotStart, ConnStatus::AuthCannotStart));
            }
            resumed = true;
        }
        Ok(Admitted { token: Some(username.to_owned()), resumed })
    }

    /// Whether the forwarder has no room for `more` beside what is kept free.
    fn lacks(&self, more: &Pools) -> bool {
        self.capacity.is_some_and(|capacity| capacity.lacks(&self.reserved, more).is_some())
    }

    /// Makes a call and its offer. Calls of the same client without an open channel end: it asked again.
    fn allocate(
        &mut self,
        turn: &mut Turn<'_>,
        key: Arc<str>,
        user: User,
        message: &Message<'_>,
        client: IpAddr,
        origin: Origin,
    ) -> String {
        let limits = self.config.limits;
        let older = self.rooms.get(&key).and_then(|room| room.users.get(&user)).cloned().unwrap_or_default();
        for old in older {
            if self.calls.get(&old).is_some_and(|call| call.stage < Stage::Open) {
                self.end(turn, old, Reason::Replaced);
            }
        }
        let participant = ParticipantId(self.next_participant);
        self.next_participant += 1;
        let evicted = self.allocations.add(participant, origin, limits.allocations, limits.allocations_per_source);
        if let Some((evicted, reason)) = evicted {
            self.end(turn, evicted, reason);
        }
        let (videos, simulcast) = wanted(message, limits.video_slots);
        let streams = Streams::draw(limits.conference.audio_slots, videos, simulcast, turn.random);
        let credentials = Credentials { ufrag: turn.random.text(12), password: turn.random.text(32) };
        let sdp = streams.offer(&self.config, &credentials, turn.random);
        let next = &mut self.next_conference;
        let room = self.rooms.entry(key.clone()).or_insert_with(|| {
            *next += 1;
            Room::new(Conference::new(*next - 1, limits.conference))
        });
        let video = room.invent(turn.random);
        room.users.entry(user.clone()).or_default().push(participant);
        let text = reply::setup(&key, &user.user, &user.client, message.update.0, &sdp, &self.config.public_url);
        let tool = message.tool.as_str().unwrap_or_default().chars().take(64).collect::<String>();
        let call = Call {
            room: key,
            user,
            stage: Stage::Offered,
            since: turn.now,
            client,
            tool: tool.into(),
            streams,
            audio: None,
            video,
            place: None,
            listed: 0,
            properties: Bytes::new(),
            agreed: None,
            muted: false,
            wants: Vec::new(),
            bucket: Bucket::new(turn.now, limits.message_rate, limits.message_burst),
            reserved: Pools::default(),
            tuples: Vec::new(),
        };
        self.setups.insert((turn.now + limits.setup, participant));
        self.calls.insert(participant, call);
        self.counters.offers += 1;
        turn.actions.push(Action::Open { participant, credentials, controlling: true });
        text
    }

    /// A client answered an offer.
    fn setup(
        &mut self,
        turn: &mut Turn<'_>,
        convid: &str,
        user: &User,
        message: &Message<'_>,
    ) -> Result<String, Refused> {
        let newest = self.rooms.get(convid).and_then(|room| room.users.get(user)).and_then(|ids| ids.last()).copied();
        let accepted = reply::confconn(convid, ConnStatus::Ok);
        let (participant, call) = match newest.and_then(|id| Some((id, self.calls.get_mut(&id)?))) {
            Some((id, call)) if call.stage == Stage::Offered => (id, call),
            // The reply to the first one was lost.
            Some((_, call)) if call.stage < Stage::Open => return Ok(accepted),
            _ => return Err(Refused::bad(Reason::NoOffer, "no offer waits for an answer; send CONFCONN first")),
        };
        let sdp = message.sdp.as_str().ok_or_else(|| Refused::bad(Reason::Answer, "sdp is missing"))?;
        let read = answer::answer(sdp, &call.streams.offered(), &self.config.limits.description);
        let read = read.map_err(|error| {
            let long = matches!(error, AnswerError::Description(SdpError::TooLong { .. }));
            let reason = if long { Reason::AnswerSize } else { Reason::Answer };
            Refused::bad(reason, format!("sdp: {error}"))
        })?;
        let description = describe(&read, &call.streams, call.video, &self.config.limits);
        description.check().map_err(|e| Refused::bad(Reason::Answer, format!("sdp: {e}")))?;
        usable(&read.remote.credentials).map_err(|text| Refused::bad(Reason::Answer, text))?;
        let (since, room, audio) = (call.since, call.room.clone(), read.audio.as_ref().map(|audio| audio.ssrc));
        if self.rooms.get(convid).is_some_and(|room| room.core.is_full()) && !self.make_way(turn, convid, user) {
            self.end(turn, participant, Reason::ConferenceFull);
            return Ok(reply::confconn(convid, ConnStatus::AuthLimit));
        }
        let reserved = Pools::of(&description);
        // Who comes first brings the conference's own streams along.
        let mut more = self.rooms.get(convid).map_or_else(Pools::default, |room| room.brings(&self.config.limits));
        let sources = more;
        more += reserved;
        // Its own older call makes way, as soon as the new one carries it: for that long both are there.
        let returning = self.rooms.get(convid).and_then(|room| room.users.get(user)).is_some_and(|ids| ids.len() > 1);
        if !returning && self.lacks(&more) {
            self.end(turn, participant, Reason::ForwarderFull);
            return Ok(reply::confconn(convid, ConnStatus::AuthLimit));
        }
        let Some(call) = self.calls.get_mut(&participant) else {
            return Err(Refused::bad(Reason::NoOffer, "the offer is no longer valid; send CONFCONN again"));
        };
        call.stage = Stage::Answered;
        call.audio = audio;
        call.reserved = reserved;
        self.reserved += more;
        if let Some(room) = self.rooms.get_mut(convid) {
            room.reserved += sources;
        }
        self.setups.remove(&(since + self.config.limits.setup, participant));
        self.allocations.answered(participant);
        let deadline = turn.now + self.config.limits.connect;
        let description = Box::new(description);
        self.run(turn, &room, conference::Event::Join { participant, description, deadline });
        turn.actions.push(Action::Answer { participant, remote: Box::new(read.remote) });
        Ok(accepted)
    }

    /// In a full conference a client that comes back gives up its old call first. Whether there is a place now.
    fn make_way(&mut self, turn: &mut Turn<'_>, convid: &str, user: &User) -> bool {
        let ids = self.rooms.get(convid).and_then(|room| room.users.get(user)).cloned().unwrap_or_default();
        let Some((_, older)) = ids.split_last() else { return false };
        for old in older {
            self.end(turn, *old, Reason::Replaced);
        }
        self.rooms.get(convid).is_some_and(|room| !room.core.is_full())
    }
}

/// Video slots a client wants, and whether it is asked for layers.
fn wanted(message: &Message<'_>, most: u8) -> (usize, bool) {
    let asked = if message.selective_video.0 { message.vstreams.0.unwrap_or(0).min(MOST_VIDEO) } else { 0 };
    let major = major(message.toolver.as_str().unwrap_or_default());
    (asked.min(u64::from(most)) as usize, major.is_some_and(|major| major == 0 || major >= 10))
}

/// Whether a leg can be made with credentials (RFC 8839 §5.4).
fn usable(credentials: &Credentials) -> Result<(), &'static str> {
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
    if !(4..=256).contains(&credentials.ufrag.len()) || !plain(&credentials.ufrag) {
        return Err("sdp: ice-ufrag must be 4 to 256 letters, digits, + or /");
    }
    if !(22..=256).contains(&credentials.password.len()) || !plain(&credentials.password) {
        return Err("sdp: ice-pwd must be 22 to 256 letters, digits, + or /");
    }
    Ok(())
}

fn resource(path: &str) -> Option<Resource<'_>> {
    let path = path.trim_end_matches('/');
    let (rest, last) = path.rsplit_once('/')?;
    let parent = rest.rsplit('/').next().unwrap_or_default();
    match last {
        "sft_servers_all.json" => Some(Resource::Servers),
        "status" if !parent.is_empty() => Some(Resource::Status),
        "url" if !parent.is_empty() => Some(Resource::Url),
        convid if parent == "sft" && is_id(convid) => Some(Resource::Conference(convid)),
        _ => None,
    }
}
