"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const stage = document.getElementById("stage");
const pen = stage.getContext("2d");
const atlas = document.getElementById("atlas");
const bar = document.querySelector(".tools");
const $ = (id) => document.getElementById(id);
const count = data.names.length;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");

// -- state: where every picture is, what the view shows, which picture is looked at -----------------------------------

const state = {
  mode: data.order[0], here: null, from: null, began: 0, moving: false, side: 0, fromSide: 0, shown: null, fromShown: null,
  view: null, goal: null, held: -1, over: -1, beside: -1, dim: 0, kind: -1, found: null,
};
let wide = 1, high = 1, sharp = 1, asked = false, colours = {};

function layout(mode) {
  const map = data.maps[mode];
  const shown = new Float32Array(count), here = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    const known = map.x[i] !== null;
    shown[i] = known ? 1 : 0;
    here[2 * i] = known ? map.x[i] : 0;
    here[2 * i + 1] = known ? map.y[i] : 0;
  }
  return { here, shown, side: map.side };
}

function fitting(mode) {
  const map = data.maps[mode], pad = Math.min(wide, high) * 0.03, above = bar.getBoundingClientRect().height + 16;
  const scale = Math.max(1e-3, Math.min((wide - 2 * pad) / map.wide, (high - above - 2 * pad) / map.high));
  return { x: 0, y: -above / 2 / scale, scale };
}

function choose(mode) {
  if (mode === state.mode && !state.moving && state.here) return glide(fitting(mode));
  const next = layout(mode);
  state.mode = mode;
  if (!state.here || calm.matches) {
    Object.assign(state, { here: next.here, side: next.side, shown: next.shown, moving: false });
  } else {
    const now = current();
    Object.assign(state, {
      from: now.here, fromSide: now.side, fromShown: now.shown, here: next.here, side: next.side, shown: next.shown,
      began: performance.now(), moving: true,
    });
  }
  glide(fitting(mode));
  for (const input of document.querySelectorAll("input[name=map]")) input.checked = input.value === mode;
  for (const row of document.querySelectorAll("[data-map]")) row.classList.toggle("now", row.dataset.map === mode);
  draw();
}

const ease = (t) => (t < 0.5 ? 4 * t * t * t : 1 - Math.pow(-2 * t + 2, 3) / 2);

function current() {
  if (!state.moving) return { here: state.here, side: state.side, shown: state.shown };
  const share = Math.min(1, (performance.now() - state.began) / 1000);
  if (share >= 1) {
    state.moving = false;
    return { here: state.here, side: state.side, shown: state.shown };
  }
  const t = ease(share), here = new Float32Array(2 * count), shown = new Float32Array(count);
  for (let i = 0; i < 2 * count; i++) here[i] = state.from[i] + t * (state.here[i] - state.from[i]);
  for (let i = 0; i < count; i++) shown[i] = state.fromShown[i] + t * (state.shown[i] - state.fromShown[i]);
  return { here, side: state.fromSide + t * (state.side - state.fromSide), shown };
}

function glide(goal) {
  if (calm.matches || !state.view) {
    state.view = goal;
    state.goal = null;
  } else {
    state.goal = { to: goal, from: { ...state.view }, began: performance.now(), took: state.moving ? 1000 : 420 };
  }
  draw();
}

const screen = (x, y) => [(x - state.view.x) * state.view.scale + wide / 2, (y - state.view.y) * state.view.scale + high / 2];
const focus = () => (state.held >= 0 ? state.held : state.over);

// -- drawing ------------------------------------------------------------------------------------------------------------

const levels = [];

function halve() {
  let picture = atlas, side = data.side;
  levels.push({ picture, side });
  while (side % 2 === 0 && side > 16) {
    const small = document.createElement("canvas");
    small.width = (data.columns * side) / 2;
    small.height = (Math.ceil(count / data.columns) * side) / 2;
    const into = small.getContext("2d");
    into.imageSmoothingQuality = "high";
    into.drawImage(picture, 0, 0, small.width, small.height);
    side /= 2;
    picture = small;
    levels.push({ picture, side });
  }
}

function thumb(into, i, x, y, size, ratio) {
  let level = levels[0];
  for (const other of levels) if (other.side >= size * ratio) level = other;
  const column = i % data.columns, row = Math.floor(i / data.columns), side = level.side;
  into.drawImage(level.picture, column * side, row * side, side, side, x, y, size, size);
}

function draw() {
  if (asked || !levels.length || !state.view) return;
  asked = true;
  requestAnimationFrame(paint);
}

function paint(now) {
  asked = false;
  if (state.goal) {
    const share = Math.min(1, Math.max(0, (performance.now() - state.goal.began) / state.goal.took)), t = ease(share);
    const { from, to } = state.goal;
    state.view = {
      x: from.x + t * (to.x - from.x), y: from.y + t * (to.y - from.y), scale: from.scale * Math.pow(to.scale / from.scale, t),
    };
    if (share >= 1) state.goal = null;
  }
  const at = focus(), target = at >= 0 ? 1 : 0;
  state.dim = calm.matches ? target : state.dim + (target - state.dim) * 0.3;
  if (Math.abs(state.dim - target) < 0.02) state.dim = target;
  const { here, side, shown } = current();
  const size = side * state.view.scale;
  const near = new Set(at >= 0 ? data.near[at] : []);
  pen.setTransform(sharp, 0, 0, sharp, 0, 0);
  pen.clearRect(0, 0, wide, high);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  for (let i = 0; i < count; i++) {
    if (i === at || near.has(i)) continue;
    picture(i, here, size, shown[i] * (matches(i) ? 1 - 0.78 * state.dim : 0.1), false);
  }
  if (at >= 0 && shown[at] > 0) {
    const [fx, fy] = screen(here[2 * at], here[2 * at + 1]);
    data.near[at].forEach((other, rank) => {
      if (shown[other] <= 0) return;
      const [x, y] = screen(here[2 * other], here[2 * other + 1]);
      pen.globalAlpha = (other === state.beside ? 1 : 0.85 - (0.5 * rank) / data.near[at].length) * state.dim;
      pen.strokeStyle = colours.glow;
      pen.lineWidth = other === state.beside ? 4 : Math.max(1.2, 3 - (2 * rank) / data.near[at].length);
      pen.beginPath();
      pen.moveTo(fx, fy);
      pen.lineTo(x, y);
      pen.stroke();
    });
    for (let k = data.near[at].length - 1; k >= 0; k--) {
      const other = data.near[at][k];
      picture(other, here, Math.max(size, 26) * (other === state.beside ? 1.5 : 1), shown[other], true);
    }
    picture(at, here, Math.max(size + Math.min(size * 0.35, 40), 64), 1, true, true);
  }
  pen.globalAlpha = 1;
  if (state.moving || state.goal || state.dim !== target) draw();
}

function picture(i, here, size, alpha, lit, top) {
  if (alpha <= 0.01) return;
  const [x, y] = screen(here[2 * i], here[2 * i + 1]);
  if (x + size < 0 || y + size < 0 || x - size > wide || y - size > high) return;
  const left = x - size / 2, upper = y - size / 2;
  pen.globalAlpha = alpha;
  if (top) {
    pen.shadowColor = "rgba(0, 0, 0, 0.45)";
    pen.shadowBlur = 22;
    pen.fillStyle = colours.glow;
    pen.fillRect(left - 3, upper - 3, size + 6, size + 6);
    pen.shadowBlur = 0;
    pen.shadowColor = "transparent";
  }
  thumb(pen, i, left, upper, size, sharp);
  const tone = data.kinds ? data.colours[data.kinds[i]] : null;
  if (lit || (tone && size > 9)) {
    const line = lit ? Math.min(4, Math.max(2, size / 18)) : Math.min(4, Math.max(1.2, size / 16));
    pen.strokeStyle = lit && !tone ? colours.glow : tone;
    pen.lineWidth = line;
    pen.strokeRect(left + line / 2, upper + line / 2, size - line, size - line);
  }
}

function matches(i) {
  return (state.kind < 0 || data.kinds[i] === state.kind) && (!state.found || state.found.has(i));
}

// -- the picture that is looked at, beside the map ------------------------------------------------------------------------

let told = -2;

function tell() {
  const at = focus();
  if (at === told) return;
  told = at;
  $("card").hidden = at < 0;
  $("hint").hidden = at >= 0;
  if (at < 0) return;
  small($("large"), at, 320);
  $("name").textContent = data.names[at];
  $("kind").textContent = data.kinds ? data.classes[data.kinds[at]] : "";
  $("kind").hidden = !data.kinds;
  if (data.kinds) $("kind").style.setProperty("--tone", data.colours[data.kinds[at]]);
  $("near").replaceChildren(...data.near[at].map((other, rank) => neighbour(other, data.far[at][rank])));
}

function small(canvas, i, size) {
  canvas.width = canvas.height = Math.round(size * Math.min(2, sharp));
  const into = canvas.getContext("2d");
  into.imageSmoothingQuality = "high";
  thumb(into, i, 0, 0, canvas.width, 1);
}

function neighbour(other, distance) {
  const item = document.createElement("li"), button = document.createElement("button"), canvas = document.createElement("canvas");
  const words = document.createElement("span");
  button.type = "button";
  button.dataset.image = other;
  small(canvas, other, 72);
  words.textContent = distance.toFixed(3);
  button.setAttribute("aria-label", `${data.names[other]}, distance ${distance.toFixed(3)}`);
  button.title = data.names[other];
  if (data.kinds) button.style.setProperty("--tone", data.colours[data.kinds[other]]);
  button.append(canvas, words);
  const over = (which) => () => { state.beside = which; draw(); };
  button.addEventListener("pointerenter", over(other));
  button.addEventListener("pointerleave", over(-1));
  button.addEventListener("focus", over(other));
  button.addEventListener("blur", over(-1));
  button.addEventListener("click", () => { hold(other, true); $("near").querySelector("button")?.focus(); });
  item.append(button);
  return item;
}

function hold(i, look) {
  state.held = i;
  state.over = -1;
  state.beside = -1;
  if (i >= 0 && look) reveal(i);
  tell();
  draw();
}

function reveal(i) {
  const { here } = current(), [x, y] = screen(here[2 * i], here[2 * i + 1]), pad = Math.min(70, wide / 5);
  if (x > pad && y > pad && x < wide - pad && y < high - pad) return;
  glide({ x: here[2 * i], y: here[2 * i + 1], scale: state.view.scale });
}

// -- pointer: hover, drag, wheel, pinch -----------------------------------------------------------------------------------

const fingers = new Map();
let dragged = 0, apart = 0;

function at(x, y) {
  const { here, side, shown } = current(), half = (side * state.view.scale) / 2;
  for (let i = count - 1; i >= 0; i--) {
    if (shown[i] < 0.5) continue;
    const [px, py] = screen(here[2 * i], here[2 * i + 1]);
    if (Math.abs(px - x) <= half && Math.abs(py - y) <= half) return i;
  }
  return -1;
}

function local(event) {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function zoom(factor, x, y) {
  state.goal = null;
  const least = fitting(state.mode).scale * 0.6, most = Math.max(least * 4, 400 / state.side);
  const scale = Math.min(most, Math.max(least, state.view.scale * factor)), { view } = state;
  const wx = (x - wide / 2) / view.scale + view.x, wy = (y - high / 2) / view.scale + view.y;
  state.view = { x: wx - (x - wide / 2) / scale, y: wy - (y - high / 2) / scale, scale };
  draw();
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...local(event));
}, { passive: false });

stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, local(event));
  dragged = fingers.size > 1 ? 99 : 0;
  apart = 0;
});

stage.addEventListener("pointermove", (event) => {
  const [x, y] = local(event), before = fingers.get(event.pointerId);
  if (!before) {
    if (state.held < 0) {
      state.over = at(x, y);
      stage.style.cursor = state.over >= 0 ? "pointer" : "grab";
      tell();
      draw();
    }
    return;
  }
  fingers.set(event.pointerId, [x, y]);
  if (fingers.size === 2) {
    const [[ax, ay], [bx, by]] = [...fingers.values()], length = Math.hypot(ax - bx, ay - by);
    if (apart) zoom(length / apart, (ax + bx) / 2, (ay + by) / 2);
    apart = length;
  }
  dragged += Math.hypot(x - before[0], y - before[1]);
  if (dragged > 4) {
    state.goal = null;
    state.view.x -= (x - before[0]) / fingers.size / state.view.scale;
    state.view.y -= (y - before[1]) / fingers.size / state.view.scale;
    stage.style.cursor = "grabbing";
    draw();
  }
});

function lift(event) {
  if (!fingers.delete(event.pointerId)) return;
  apart = 0;
  stage.style.cursor = "grab";
  if (event.type !== "pointerup" || dragged > 4 || fingers.size) return;
  const found = at(...local(event));
  hold(found === state.held ? -1 : found, false);
}
stage.addEventListener("pointerup", lift);
stage.addEventListener("pointercancel", lift);
stage.addEventListener("pointerleave", () => {
  if (fingers.size || state.held >= 0) return;
  state.over = -1;
  tell();
  draw();
});

// -- keyboard -------------------------------------------------------------------------------------------------------------

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function step([dx, dy]) {
  const { here, shown } = current(), from = focus();
  const [x, y] = from >= 0 ? [here[2 * from], here[2 * from + 1]] : [state.view.x, state.view.y];
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    if (i === from || shown[i] < 0.5) continue;
    const along = (here[2 * i] - x) * dx + (here[2 * i + 1] - y) * dy;
    const across = Math.abs((here[2 * i] - x) * dy) + Math.abs((here[2 * i + 1] - y) * dx);
    if (from >= 0 && along <= 1e-6) continue;
    const cost = from >= 0 ? along + 2.5 * across : Math.hypot(here[2 * i] - x, here[2 * i + 1] - y);
    if (cost < least) [best, least] = [i, cost];
  }
  if (best >= 0) hold(best, true);
}

stage.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (WAYS[event.key]) step(WAYS[event.key]);
  else if (event.key === "+" || event.key === "=") zoom(1.4, wide / 2, high / 2);
  else if (event.key === "-") zoom(1 / 1.4, wide / 2, high / 2);
  else if (event.key === "0") glide(fitting(state.mode));
  else return;
  event.preventDefault();
});

addEventListener("keydown", (event) => {
  if (event.key === "Escape") { hold(-1); }
  if (event.key === "/" && document.activeElement !== $("search")) { event.preventDefault(); $("search").focus(); }
});

// -- search, classes, buttons ---------------------------------------------------------------------------------------------

$("search").addEventListener("input", () => {
  const words = $("search").value.trim().toLowerCase().replaceAll("_", " ");
  const names = data.names.map((name, i) => [name.toLowerCase().replaceAll("_", " "), i]);
  state.found = words ? new Set(names.filter(([name]) => name.includes(words)).map(([, i]) => i)) : null;
  $("hits").textContent = words ? `${state.found.size} of ${count}` : "";
  draw();
});
$("search").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !state.found?.size) return;
  const hits = [...state.found];
  hold(hits[(hits.indexOf(state.held) + 1) % hits.length], true);
});

for (const button of document.querySelectorAll("#classes button")) {
  button.addEventListener("click", () => {
    const kind = Number(button.dataset.kind);
    state.kind = state.kind === kind ? -1 : kind;
    for (const other of document.querySelectorAll("#classes button")) {
      other.setAttribute("aria-pressed", String(Number(other.dataset.kind) === state.kind));
    }
    draw();
  });
}
for (const input of document.querySelectorAll("input[name=map]")) input.addEventListener("change", () => choose(input.value));
$("in").addEventListener("click", () => zoom(1.5, wide / 2, high / 2));
$("out").addEventListener("click", () => zoom(1 / 1.5, wide / 2, high / 2));
$("fit").addEventListener("click", () => glide(fitting(state.mode)));

// -- size and theme -------------------------------------------------------------------------------------------------------

function theme() {
  const style = getComputedStyle(document.documentElement);
  colours = { glow: style.getPropertyValue("--glow").trim() };
  draw();
}
dark.addEventListener("change", theme);

function measure() {
  const box = stage.getBoundingClientRect(), before = state.view ? fitting(state.mode) : null;
  wide = Math.max(1, box.width);
  high = Math.max(1, box.height);
  sharp = Math.min(2, devicePixelRatio || 1);
  stage.width = Math.round(wide * sharp);
  stage.height = Math.round(high * sharp);
  if (before) {
    const now = fitting(state.mode), { view } = state;
    state.view = { x: view.x - before.x + now.x, y: view.y - before.y + now.y, scale: (view.scale * now.scale) / before.scale };
  }
  state.goal = null;
  draw();
}
new ResizeObserver(measure).observe(stage);

// Where a picture is on the screen, for whoever wants to point at it.
stage.where = (i) => {
  const { here } = current(), box = stage.getBoundingClientRect(), [x, y] = screen(here[2 * i], here[2 * i + 1]);
  return [x + box.left, y + box.top];
};

atlas.decode().then(() => {
  halve();
  measure();
  theme();
  choose(state.mode);
  document.documentElement.dataset.ready = "yes";
});
