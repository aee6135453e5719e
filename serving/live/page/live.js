"use strict";
// The page of a live host. Its protocol is that of docs/live.md, in a data channel; nothing else is loaded.

const TEXTS = {
  en: {
    title: "A host, live", host: "Host", voice: "Voice", text: "What the host says", say: "Say it", ask: "Ask",
    talk: "Hold to talk", stop: "Stop", start: "Start", key: "API key", auto: "by the language of the text",
    hint: "Enter: say it. Shift+Enter: new line. Esc: stop. Hold the space bar outside of the text: talk.",
    consent: "The mouth is drawn by a machine. Only with the consent of the person shown.",
    listening: "listening", speaking: "speaking", connecting: "connecting …", again: "connecting again …",
    over: "The session has ended.", nomic: "The microphone cannot be used.", nokey: "This server wants an API key.",
    latency: (first, trip) => `First sound ${first} · round trip ${trip}`, other: "中文",
  },
  zh: {
    title: "虚拟主播，实时", host: "主播", voice: "声音", text: "主播要说的话", say: "说出来", ask: "提问",
    talk: "按住说话", stop: "停止", start: "开始", key: "API 密钥", auto: "按文本的语言",
    hint: "回车：说出来。Shift+回车：换行。Esc：停止。在文本框之外按住空格键：说话。",
    consent: "嘴部由机器生成。只能在画面中的人同意的情况下使用。",
    listening: "正在听", speaking: "正在说", connecting: "正在连接……", again: "正在重新连接……",
    over: "会话已结束。", nomic: "无法使用麦克风。", nokey: "此服务器需要 API 密钥。",
    latency: (first, trip) => `首次出声 ${first} · 往返 ${trip}`, other: "English",
  },
};
const asked = new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);
let language = asked.get("lang") || localStorage.getItem("live-language") || (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in TEXTS)) language = "en";
const words = () => TEXTS[language];

let connection = null, channel = null, session = asked.get("session"), microphone = null, sender = null;
let saidAt = null, firstSound = null, roundTrip = null, retries = 0, wanted = false, stateWord = "";

function showTexts() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words()[element.dataset.text];
  $("language").textContent = words().other;
  if ($("voice").options.length) $("voice").options[0].textContent = words().auto;
  setState(stateWord);
  showLatency();
}

function setState(word) { stateWord = word; $("state").textContent = word ? words()[word] : ""; }
function showError(text) { $("error").textContent = text || ""; }
function showLatency() {
  const seconds = (value) => (value === null ? "–" : `${value.toFixed(2)} s`);
  $("latency").textContent = words().latency(seconds(firstSound), seconds(roundTrip));
}

function headers() {
  const key = $("key").value || sessionStorage.getItem("live-key") || "";
  if (key) sessionStorage.setItem("live-key", key);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function fetched(path, more = {}) {
  const answer = await fetch(path, { ...more, headers: { ...headers(), ...(more.headers || {}) } });
  if (answer.status === 401) { $("keyrow").hidden = false; sessionStorage.removeItem("live-key"); }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw Object.assign(new Error(answer.status === 401 ? words().nokey : body.detail || `${answer.status}`), { status: answer.status });
}

async function loadChoices() {
  const about = await fetched("live/hosts");
  $("host").replaceChildren(...about.hosts.map((host) => new Option(host.name, host.name)));
  if (asked.get("host")) $("host").value = asked.get("host");
  $("ask").hidden = !about.chat;
  const { voices } = await fetched("live/voices");
  const common = voices.filter((voice) => ["en", "zh", "ja", "fr", "de", "es"].includes(voice.language));
  $("voice").replaceChildren(new Option(words().auto, ""),
    ...common.map((voice) => new Option(`${voice.language} · ${voice.name}`, `${voice.language}|${voice.name}`)));
  return about.ice_servers;
}

async function connect() {
  wanted = true;
  showError("");
  $("start").hidden = true;
  setState(retries ? "again" : "connecting");
  try {
    const servers = await loadChoicesOnce();
    const peer = connection = new RTCPeerConnection({ iceServers: servers.map((urls) => ({ urls })) });
    const stream = new MediaStream();
    $("video").srcObject = stream;
    peer.ontrack = (event) => stream.addTrack(event.track);
    peer.addTransceiver("video", { direction: "recvonly" });
    sender = peer.addTransceiver("audio", { direction: "sendrecv" }).sender;
    channel = peer.createDataChannel("live");
    channel.onopen = opened;
    channel.onmessage = (message) => happened(JSON.parse(message.data));
    channel.onclose = () => { if (connection === peer) lost(); };
    peer.onconnectionstatechange = () => {
      if (connection === peer && ["failed", "closed", "disconnected"].includes(peer.connectionState)) lost();
    };
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const wish = { sdp: peer.localDescription.sdp, type: "offer", ...(session ? { session } : { host: $("host").value }) };
    const answer = await fetched("live/offer", {
      method: "POST", body: JSON.stringify(wish), headers: { "Content-Type": "application/json" },
    });
    session = answer.session;
    await peer.setRemoteDescription({ type: "answer", sdp: answer.sdp });
    await $("video").play().catch(() => {});
  } catch (error) {
    if (error.status === 404 && session) { session = null; return connect(); }
    // A server that is not reached, or has no room, may be better in a moment.
    if ([undefined, 429, 502, 503, 504].includes(error.status)) return lost(error.message);
    ended(error.message);
  }
}

let servers = null;
async function loadChoicesOnce() { servers = servers || (await loadChoices()); return servers; }

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    const limit = setTimeout(done, 2000);
    peer.onicegatheringstatechange = () => { if (peer.iceGatheringState === "complete") { clearTimeout(limit); done(); } };
  });
}

function opened() {
  retries = 0;
  setState("listening");
  for (const id of ["send", "ask", "talk", "stop"]) $(id).disabled = false;
}

function lost(why) {
  close();
  // Nobody is there to press a button on a page that a program shows, so that one never gives up.
  if (!wanted || (retries >= 5 && !asked.has("bare"))) return ended(why || words().over);
  retries += 1;
  setTimeout(connect, 500 * Math.min(retries, 10));
}

function close() {
  const old = connection;
  connection = channel = null;
  if (old) old.close();
  for (const id of ["send", "ask", "talk", "stop"]) $(id).disabled = true;
}

function ended(text) {
  wanted = false;
  close();
  session = asked.get("session");
  retries = 0;
  setState("");
  showError(text);
  $("caption").textContent = "";
  $("start").hidden = false;
}

function send(command) { if (channel && channel.readyState === "open") channel.send(JSON.stringify(command)); }

function happened(event) {
  if (event.event === "speaking") {
    setState("speaking");
    $("caption").textContent = "";
    if (saidAt !== null) { firstSound = (performance.now() - saidAt) / 1000; saidAt = null; showLatency(); }
  } else if (event.event === "word") {
    const before = $("caption").textContent;
    const space = before && !/[\u3040-\u30ff\u4e00-\u9fff]/.test(event.text[0]) ? " " : "";
    $("caption").textContent = before + space + event.text;
  } else if (event.event === "idle" || event.event === "interrupted") {
    setState("listening");
    if (event.event === "interrupted") $("caption").textContent = "";
  } else if (event.event === "error") {
    showError(event.message);
  } else if (event.event === "pong") {
    roundTrip = (performance.now() - event.at) / 1000;
    showLatency();
  } else if (event.event === "closed") {
    ended(words().over);
  }
}

function say(type) {
  const text = $("text").value.trim();
  if (!text) return;
  const [lang, voice] = $("voice").value.split("|");
  showError("");
  saidAt = performance.now();
  send({ type, text, ...(voice ? { lang, voice } : {}) });
  $("text").value = "";
  $("text").focus();
}

async function talk(on) {
  if ((on && $("talk").disabled) || ($("talk").getAttribute("aria-pressed") === "true") === on) return;
  $("talk").setAttribute("aria-pressed", String(on));
  try {
    if (on) {
      microphone = microphone || (await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } }));
      await sender.replaceTrack(microphone.getAudioTracks()[0]);
      if ($("talk").getAttribute("aria-pressed") !== "true") return; // let go before the browser had asked
      saidAt = performance.now();
      send({ type: "talk", on: true });
    } else {
      send({ type: "talk", on: false });
      if (sender) await sender.replaceTrack(null);
    }
  } catch (error) {
    $("talk").setAttribute("aria-pressed", "false");
    showError(words().nomic);
  }
}

$("start").onclick = connect;
$("say").onsubmit = (event) => { event.preventDefault(); say("say"); };
$("ask").onclick = () => say("ask");
$("stop").onclick = () => send({ type: "interrupt" });
$("talk").onpointerdown = () => talk(true);
for (const name of ["pointerup", "pointerleave", "pointercancel"]) $("talk").addEventListener(name, () => talk(false));
$("talk").onkeydown = (event) => { if ((event.key === " " || event.key === "Enter") && !event.repeat) { event.preventDefault(); talk(true); } };
$("talk").onkeyup = (event) => { if (event.key === " " || event.key === "Enter") talk(false); };
$("text").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!$("send").disabled) say("say"); } };
$("host").onchange = () => { if (connection) { session = null; close(); connect(); } };
$("language").onclick = () => { language = language === "en" ? "zh" : "en"; localStorage.setItem("live-language", language); showTexts(); };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") send({ type: "interrupt" });
  if (event.key === " " && event.target === document.body && !event.repeat) { event.preventDefault(); talk(true); }
});
document.addEventListener("keyup", (event) => { if (event.key === " " && event.target === document.body) talk(false); });
setInterval(() => { if (channel && channel.readyState === "open") send({ type: "ping", at: performance.now() }); }, 2000);

if (asked.has("bare")) {
  document.body.classList.add("bare");
  if (asked.get("captions") === "0") document.body.classList.add("nocaptions");
  const colour = asked.get("background");
  if (/^[0-9a-fA-F]{6}$/.test(colour || "")) document.body.style.backgroundColor = `#${colour}`;
  connect();
} else {
  loadChoicesOnce().catch((error) => showError(error.message));
}
showTexts();
