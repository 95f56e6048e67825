"use strict";
// Everything is counted since the server's start: what is drawn are differences between two pictures of its state.

const POINTS = 120;
const ADVICE = {
  shed: "requests of this model were being refused: add replicas",
  queue_full_rows: "more than may wait: add replicas, or raise max-queue-size",
  queue_full_bytes: "more than may wait: add replicas, or raise max-queue-bytes",
  queue_full_total_bytes: "more than may wait for all models: add replicas, or raise max-total-queue-bytes",
  queue_full_body_bytes: "bodies that are still coming take the room there is: slow clients, or large bodies from many",
  queue_full_requests_to_decode: "pictures come faster than they are decoded: raise decode-threads",
  queue_full_bytes_to_decode: "pictures come faster than they are decoded: raise decode-threads",
  overloaded: "the queue would have made it late: add replicas",
  deadline_at_admission: "came too late, or with less time than its computation takes",
  deadline_in_decoding: "became late here: the load changed faster than could be foreseen",
  deadline_in_queue: "became late here: the load changed faster than could be foreseen",
  shutting_down: "came to a server that was leaving",
  picture_too_costly: "more than decoding may take: max-image-pixels, max-image-scans, decode-timeout-s",
  inference_failed: "the model failed: the server's log says how",
  out_of_memory: "the device had no memory for the batch",
  unexpected_error: "a fault of the server: its log has the traceback",
};
const OTHERWISE = "its answer says what was expected";
const FAILED = ["inference_failed", "out_of_memory", "unexpected_error"];
const $ = (id) => document.getElementById(id);
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};
const quiet = (text) => element("p", { className: "quiet" }, text);
const number = (value, digits = 0) =>
  value === null || !Number.isFinite(value) ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });

class Chart {
  constructor(title, unit, digits, names) {
    Object.assign(this, { unit, digits, names, values: names.map(() => []) });
    this.label = element("b", {}, "–");
    this.canvas = element("canvas", { ariaHidden: "true" });
    $("charts").append(element("figure", {}, element("figcaption", {}, element("span", {}, title), this.label), this.canvas));
  }
  add(latest) {
    this.values.forEach((series, i) => { series.push(latest[i]); if (series.length > POINTS) series.shift(); });
    const shown = latest.map((value, i) => element("span", { className: i ? "second" : "first" }, `${this.names[i]} ${number(value, this.digits)}`.trim()));
    this.label.replaceChildren(...(shown.length > 1 ? shown.flatMap((one, i) => (i ? [" · ", one] : [one])) : [shown[0].textContent]), this.unit);
    this.draw();
  }
  draw() {
    const { canvas } = this, scale = devicePixelRatio || 1, style = getComputedStyle(document.body);
    canvas.width = canvas.clientWidth * scale;
    canvas.height = canvas.clientHeight * scale;
    const context = canvas.getContext("2d"), most = Math.max(0, ...this.values.flat().filter(Number.isFinite));
    const top = (most || 1) * 1.1;
    context.font = `${11 * scale}px ${style.fontFamily}`;
    context.fillStyle = style.getPropertyValue("--soft");
    context.fillText(`up to ${number(most, this.digits)}${this.unit}`, 0, 11 * scale);
    this.values.forEach((series, index) => {
      context.strokeStyle = style.getPropertyValue(index ? "--soft" : "--mark");
      context.lineWidth = 1.5 * scale;
      context.beginPath();
      let drawn = false;
      series.forEach((value, i) => {
        if (!Number.isFinite(value)) { drawn = false; return; }
        const x = (i + POINTS - series.length) / (POINTS - 1) * canvas.width, y = canvas.height * (1 - value / top) - 1;
        drawn ? context.lineTo(x, y) : context.moveTo(x, y);
        drawn = true;
      });
      context.stroke();
    });
  }
}

const charts = {
  rows: new Chart("rows answered", " /s", 0, [""]),
  latency: new Chart("latency", " ms", 1, ["p50", "p99"]),
  queue: new Chart("rows waiting", "", 0, [""]),
  batch: new Chart("rows a batch", "", 1, [""]),
};
addEventListener("resize", () => Object.values(charts).forEach((chart) => chart.draw()));

let before = null;
const key = (version) => `${version.model}/${version.version}`;

function percentile(now, then, share) {
  const bounds = Object.keys(now).map((le) => [le === "+Inf" ? Infinity : Number(le), now[le] - (then[le] || 0)]).sort((a, b) => a[0] - b[0]);
  const total = bounds.length ? bounds[bounds.length - 1][1] : 0;
  if (total <= 0) return NaN;
  let lower = 0, below = 0;
  for (const [upper, count] of bounds) {
    if (count >= share * total) return (upper === Infinity ? lower : lower + (upper - lower) * (share * total - below) / (count - below)) * 1e3;
    [lower, below] = [upper, count];
  }
  return NaN;
}

function mean(now, then) {
  return now.count > then.count ? (now.ns - then.ns) / (now.count - then.count) / 1e6 : NaN;
}

function show(state) {
  const line = $("state");
  $("shown").hidden = false; // before, "nothing so far" would be said of what is not known
  line.className = state.not_ready.length ? "bad" : "good";
  line.textContent = `${state.server} · ` + (state.not_ready.length ? `not ready: ${state.not_ready.join("; ")}` : "ready");
  // It began to count anew, or its clock was set back.
  if (before && (state.time < before.time || state.versions.some((v) => (earlier(v) || {}).rows > v.rows))) before = null;
  const seconds = before ? state.time - before.time : 0;
  if (!before || seconds > 0.2) {
    versions(state, seconds);
    refusals(state);
    late(state);
    models(state);
    if (before) draw(state, seconds);
    before = state;
  }
}

const earlier = (version) => before && before.versions.find((one) => key(one) === key(version));
const sum = (state, field) => state.versions.reduce((total, one) => total + (field(one) || 0), 0);
// A version that has come began at nothing; what one that has gone had counted went with it.
const since = (version, field) => (version[field] === undefined ? 0 : version[field] - ((earlier(version) || {})[field] || 0));

function draw(state, seconds) {
  const rows = sum(state, (v) => since(v, "rows")), batches = sum(state, (v) => since(v, "batches"));
  charts.rows.add([rows / seconds]);
  charts.latency.add([percentile(state.latency, before.latency, 0.5), percentile(state.latency, before.latency, 0.99)]);
  charts.queue.add([sum(state, (v) => v.queued && v.queued.interactive + v.queued.bulk)]);
  charts.batch.add([batches > 0 ? rows / batches : NaN]);
}

function versions(state, seconds) {
  $("versions").replaceChildren(...state.versions.flatMap((version) => {
    const cell = (text, className = "") => element("td", { className }, text);
    const labels = version.labels.map((label) => element("span", { className: "tag" }, label));
    if (version.traffic) labels.push(` ${version.traffic}`);
    const head = [cell(version.model), cell(version.version), cell(version.state, version.state === "READY" ? "good" : "bad"), element("td", {}, ...labels)];
    if (version.rows === undefined) return [
      element("tr", { className: version.reason ? "explained" : "" }, ...head, element("td", { colSpan: 7 })),
      ...(version.reason ? [element("tr", {}, element("td", { className: "reason", colSpan: 11 }, element("p", {}, version.reason)))] : []),
    ];
    const then = earlier(version), has = then && then.rows !== undefined && seconds;
    const rows = has ? version.rows - then.rows : NaN, batches = has ? version.batches - then.batches : NaN;
    const busy = has ? (version.compute.ns - then.compute.ns) / 1e9 / seconds / version.instances : NaN;
    return element("tr", {}, ...head,
      cell(version.provider + (version.golden ? ", checked" : "")),
      cell(number(rows / seconds), "n"), cell(number(rows / batches, 1), "n"),
      cell(number(version.queued.interactive + version.queued.bulk), "n"),
      cell(number(has ? mean(version.queue, then.queue) : NaN, 2), "n"),
      cell(number(has ? mean(version.compute, then.compute) : NaN, 2), "n"),
      cell(Number.isFinite(busy) ? `${number(Math.min(100, 100 * busy))} %` : "–", "n"));
  }));
}

function refusals(state) {
  const reasons = Object.entries(state.refused).filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
  if (!reasons.length) return $("refused").replaceChildren(quiet("nothing so far"));
  $("refused").replaceChildren(element("dl", {}, ...reasons.flatMap(([reason, count]) => [
    element("dt", {}, reason), element("dd", { className: "n" }, number(count)),
    element("dd", { className: "advice quiet" }, ADVICE[reason] || OTHERWISE)])));
}

const PARTS = ["read", "queue", "compute", "reply"];
const LATE = 12;

function late(state) {
  const all = (kind) => state.late.flatMap((one) => one[kind].map((request) => ({ ...request, model: `${one.model_name} ${one.model_version}` })));
  const slow = all("slowest").sort((a, b) => b.total_us - a.total_us).slice(0, LATE);
  const refused = all("refused").sort((a, b) => b.ended_at_ms - a.ended_at_ms).slice(0, LATE);
  if (!slow.length && !refused.length) return $("late").replaceChildren(element("li", { className: "quiet" }, "nothing so far"));
  const longest = Math.max(1, ...slow.map((one) => one.total_us));
  $("late").replaceChildren(...[...slow, ...refused].map((one) => waterfall(one, longest, state.time)));
}

function waterfall(one, longest, now) {
  const ms = (us) => `${number(us / 1e3, 1)} ms`;
  const parts = PARTS.map((part) => [part, one[`${part}_us`]]);
  const bar = element("span", { className: "fall", role: "img", ariaLabel: parts.map(([part, us]) => `${part} ${ms(us)}`).join(", ") },
    ...parts.map(([part, us]) => {
      const piece = element("i", { className: part, title: `${part} ${ms(us)}` });
      piece.style.width = `${100 * Math.min(1, us / longest)}%`;
      return piece;
    }));
  const ago = Math.max(0, now - one.ended_at_ms / 1e3), about = [one.model, `${number(ago)}\u00a0s\u00a0ago`];
  const rows = (count) => `${number(count)} ${count === 1 ? "row" : "rows"}`;
  if (one.rows_ahead) about.push(`behind ${rows(one.rows_ahead)} in lane ${one.lane}`);
  if (one.turn_us) about.push(`turn ${ms(one.turn_us)}`);
  if (one.batch) {
    const padding = one.batch.padded_rows - one.batch.rows;
    about.push(`batch of ${rows(one.batch.rows)}${padding > 0 ? ` and ${padding} of padding` : ""}, of ${one.batch.requests === 1 ? "it alone" : `${one.batch.requests} requests`}`);
  }
  if (one.id) about.push(element("span", {}, "request ", element("bdi", {}, one.id)));
  if (one.trace_id) about.push(`trace ${one.trace_id}`);
  if (one.deadline_us !== undefined) about.push(`deadline ${ms(one.deadline_us)}`);
  const ended = FAILED.includes(one.reason) ? "failed" : one.reason ? "refused" : ms(one.total_us);
  return element("li", {}, element("span", { className: one.reason ? "ms bad" : "ms" }, ended), bar,
    element("span", { className: "why" }, `${one.cause} `, element("small", {}, ...about.flatMap((part, i) => (i ? [" · ", part] : [part])))));
}

function models(state) {
  const names = [...new Set(state.versions.filter((one) => one.pictures).map((one) => one.model))];
  const select = $("model");
  if (!before || names.join("\n") !== [...select.options].map((one) => one.value).join("\n")) {
    const chosen = select.value, had = select.options.length;
    select.replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(chosen)) select.value = chosen;
    if (!names.length) $("answers").replaceChildren(quiet("No model here takes pictures."));
    else if (!had) $("answers").replaceChildren(quiet("Draw a digit, or drop a picture on the black square."));
  }
}

// Try it: the picture goes to every version of the model that answers, so that stable and canary stand side by side.
const pad = $("pad"), pen = pad.getContext("2d");
let drawing = false, shown = null, timer = 0, asked = 0;

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, pad.width, pad.height);
  clearTimeout(timer);
  shown = null;
  asked++; // answers that are on their way come too late
}

function at(event) {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
}

pad.addEventListener("pointerdown", (event) => {
  drawing = true;
  pad.setPointerCapture(event.pointerId);
  Object.assign(pen, { strokeStyle: "#fff", lineWidth: 22, lineCap: "round", lineJoin: "round" });
  pen.beginPath();
  pen.moveTo(...at(event));
  pen.lineTo(...at(event));
  pen.stroke();
});
pad.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  pen.lineTo(...at(event));
  pen.stroke();
  clearTimeout(timer);
  timer = setTimeout(askDrawing, 150);
});
const lift = () => { if (drawing) { drawing = false; askDrawing(); } };
pad.addEventListener("pointerup", lift);
pad.addEventListener("pointercancel", lift);
$("clear").addEventListener("click", () => { clear(); $("answers").replaceChildren(); });
$("model").addEventListener("change", () => { if (shown) ask(shown); });
const askDrawing = () => pad.toBlob((picture) => ask(picture), "image/png");

$("file").addEventListener("change", (event) => { if (event.target.files[0]) take(event.target.files[0]); event.target.value = ""; });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
});

async function take(file) {
  clear();
  try {
    const picture = await createImageBitmap(file), scale = Math.min(pad.width / picture.width, pad.height / picture.height);
    const [width, height] = [picture.width * scale, picture.height * scale];
    pen.drawImage(picture, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  } catch { /* the server says what is wrong with it */ }
  ask(file);
}

async function ask(picture) {
  const model = $("model").value, turn = ++asked;
  shown = picture;
  if (!model || !before) return;
  const versions = before.versions.filter((one) => one.model === model && one.pictures);
  const answers = await Promise.all(versions.map((one) => classify(model, one, picture)));
  if (turn === asked) $("answers").replaceChildren(...answers);
}

async function classify(model, version, picture) {
  const title = `${model} ${version.version}` + (version.labels.length ? ` (${version.labels.join(", ")})` : "");
  const box = element("div", { className: "answer" }, element("h3", {}, title));
  try {
    const answer = await fetch(`v2/models/${encodeURIComponent(model)}/versions/${version.version}/classify?top_k=5`, { method: "POST", body: picture, headers: headers() });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error);
    for (const one of said.results[0].classifications) {
      const name = one.label || String(one.index), share = `${number(100 * one.probability, 1)} %`;
      box.append(element("div", { className: "bar" }, element("span", { title: name }, name), element("meter", { value: one.probability, ariaLabel: `${name}: ${share}` }), element("span", { className: "n" }, share)));
    }
    const { decode_us, queue_us, compute_us } = said.timing;
    box.append(quiet(`decoded in ${number(decode_us / 1e3, 1)} ms, waited ${number(queue_us / 1e3, 1)} ms, computed in ${number(compute_us / 1e3, 1)} ms`));
  } catch (error) {
    box.append(element("p", { className: "bad" }, error.message));
  }
  return box;
}

// Where the server has an access policy, its data asks for a token, which an event stream cannot carry: then the page
// asks once a second. The token is kept in this page's memory alone.
let token = "";
const headers = () => (token ? { authorization: `Bearer ${token}` } : {});

function problem(text) {
  $("state").className = "bad";
  $("state").textContent = text;
}

// A browser opens six connections to a server, for all of its tabs together, and a stream keeps one: only a page that
// is seen has one, the others ask.
let stream = null;

function watch() {
  clearTimeout(waiting);
  stream?.close();
  if (document.hidden) return again();
  stream = new EventSource("live"); // it connects again by itself, also after the server's restart
  stream.addEventListener("message", (event) => show(JSON.parse(event.data)));
  stream.addEventListener("error", ({ target }) => {
    if (target.readyState === EventSource.CLOSED) again(); // it was refused, and is told why when it asks
    else problem("the server does not answer; trying again…");
  });
}

let waiting = 0;
const again = () => { clearTimeout(waiting); waiting = setTimeout(poll, 1000); };

async function poll() {
  const asked = token;
  try {
    const answer = await fetch("live.json", { headers: headers() });
    const said = await answer.json();
    if (asked !== token) return; // another token was given meanwhile, and asks for itself
    const denied = answer.status === 401 || answer.status === 403;
    $("access").hidden = !denied;
    if (denied) return problem(token || answer.status === 403 ? said.error : "this server has an access policy: what is shown here asks for a token");
    if (answer.ok) show(said);
    else problem(`${said.error}; trying again…`);
    if (answer.ok && !token) return watch();
  } catch {
    if (asked !== token) return;
    problem("the server does not answer; trying again…");
  }
  again();
}

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  if (!given) return;
  token = given;
  clearTimeout(waiting);
  poll();
});

document.addEventListener("visibilitychange", () => { if (!token) watch(); });

clear();
watch();
