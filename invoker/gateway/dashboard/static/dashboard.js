// Keeps an open page live. Without it every page is whole, only as it was when it was asked for.
//
// The server says `change`, the page asks for itself again, and every element with `data-live` and an id takes the place
// of its predecessor. Nothing is drawn here.

const LOGIN = "/ui/login";
const REDRAWN_SECONDS = 5;

// ---- live parts

let asking = false;
let again = false;

async function refresh() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (answer.redirected && new URL(answer.url).pathname === LOGIN) {
      location.assign(answer.url); // the key is not valid any more
      return;
    }
    const type = answer.headers.get("content-type") ?? "";
    if (answer.ok && type.startsWith("text/html")) {
      replaceLive(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } catch {
    // away for a moment: the stream comes again by itself, and begins with a change
  } finally {
    asking = false;
  }
  if (again) {
    again = false;
    await refresh();
  }
}

function replaceLive(fresh) {
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const next = fresh.getElementById(old.id);
    if (!next || old.isEqualNode(next)) {
      continue;
    }
    if (old.contains(document.activeElement) && isTyping(document.activeElement)) {
      continue; // nobody's words are taken from under his fingers
    }
    const kept = remembered(old);
    const imported = document.importNode(next, true);
    old.replaceWith(imported);
    recall(imported, kept);
    adorn(imported);
  }
}

function isTyping(element) {
  return element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
}

// What the reader did to a part that is replaced: boxes ticked, folds opened, where the keyboard and the scroll bars are.
function remembered(part) {
  const keys = (selector) => new Set([...part.querySelectorAll(selector)].map((one) => one.dataset.key));
  return {
    ticked: keys("input[data-key]:checked"),
    opened: keys("details[data-key][open]"),
    folded: keys("details[data-key]:not([open])"),
    focus: part.contains(document.activeElement) ? place(document.activeElement) : null,
    scrolled: [...part.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]),
  };
}

function place(element) {
  if (element.id) {
    return `#${CSS.escape(element.id)}`;
  }
  if (element.dataset.key) {
    return `[data-key="${CSS.escape(element.dataset.key)}"]`;
  }
  return element.matches("a[href]") ? `a[href="${CSS.escape(element.getAttribute("href"))}"]` : null;
}

function recall(part, kept) {
  for (const box of part.querySelectorAll("input[data-key]")) {
    box.checked = kept.ticked.has(box.dataset.key);
  }
  for (const fold of part.querySelectorAll("details[data-key]")) {
    if (kept.opened.has(fold.dataset.key)) {
      fold.open = true;
    } else if (kept.folded.has(fold.dataset.key)) {
      fold.open = false;
    }
  }
  part.querySelectorAll(".scroll").forEach((one, index) => {
    [one.scrollLeft, one.scrollTop] = kept.scrolled[index] ?? [0, 0];
  });
  if (kept.focus) {
    part.querySelector(kept.focus)?.focus({ preventScroll: true });
  }
}

function follow() {
  const address = document.body.dataset.stream;
  if (!address) {
    return;
  }
  const mark = document.querySelector("[data-live-mark]");
  let stream = null;
  const open = () => {
    stream = new EventSource(address);
    stream.addEventListener("change", refresh);
    stream.addEventListener("open", () => mark && (mark.hidden = false));
    stream.addEventListener("error", () => {
      if (mark) {
        mark.hidden = true;
      }
      if (stream.readyState === EventSource.CLOSED) {
        refresh(); // refused: leads to signing in where that is why
        setTimeout(open, 2000); // the browser itself does not come again
      }
    });
  };
  open();
  addEventListener("pagehide", () => stream.close());
}

// ---- clocks: what goes on counts on

let ticks = 0;

function tick() {
  ticks += 1;
  if (ticks % REDRAWN_SECONDS === 0 && document.querySelector("[data-redraw]")) {
    refresh(); // a drawing of what goes on grows
  }
  for (const one of document.querySelectorAll("[data-since]")) {
    one.textContent = duration((Date.now() - Date.parse(one.dataset.since)) / 1000);
  }
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// ---- forms: a second click on the same button does nothing (and the server would not do it twice either)

function guardForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") {
      return;
    }
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) {
      delete form.dataset.sent;
    }
  });
}

// ---- parts that a page may have; each is given the part of the document that is new

const adornments = [showAsked, selectAll, runLog];

// The node that a page is about, in a drawing that is wider than the page; only when the page is opened.
function showAsked(part) {
  const node = part === document && part.querySelector(".graph .asked");
  if (node) {
    const area = node.closest(".scroll");
    const place = node.getBoundingClientRect();
    area.scrollLeft = Math.max(0, place.left - area.getBoundingClientRect().left - (area.clientWidth - place.width) / 2);
  }
}

// A box that ticks all boxes of that name, and words that count the ticked ones.
function selectAll(part) {
  for (const all of part.querySelectorAll("input[data-selects]")) {
    const name = all.dataset.selects;
    const boxes = () => [...document.querySelectorAll(`input[type=checkbox][name="${CSS.escape(name)}"]`)];
    const show = () => {
      const given = boxes();
      const ticked = given.filter((one) => one.checked).length;
      all.checked = ticked > 0 && ticked === given.length;
      all.indeterminate = ticked > 0 && !all.checked;
      for (const words of document.querySelectorAll(`[data-counts="${CSS.escape(name)}"]`)) {
        words.textContent = `${ticked} selected`;
      }
      for (const button of document.querySelectorAll(`[data-needs="${CSS.escape(name)}"]`)) {
        button.disabled = ticked === 0;
      }
    };
    all.hidden = boxes().length === 0;
    all.addEventListener("change", () => {
      boxes().forEach((one) => (one.checked = all.checked));
      show();
    });
    all.closest("table").addEventListener("change", show);
    show();
  }
}

// The log of a run: a search, a way to the end, and the lines that come. They are text, never anything else.
const LOG_LINES = 2000;
const LOG_LOOKS = { bad: /error|exception|traceback|fatal|critical|panic/i, warn: /warn/i };

function runLog(part) {
  for (const log of part.querySelectorAll("[data-log]")) {
    const lines = log.querySelector("[data-log-lines]");
    const search = log.querySelector("[data-log-search]");
    const fits = (line) => line.textContent.toLowerCase().includes(search.value.trim().toLowerCase());
    const toEnd = () => (lines.scrollTop = lines.scrollHeight);
    log.querySelector("[data-log-tools]").hidden = false;
    log.querySelector("[data-log-end]").addEventListener("click", toEnd);
    search.addEventListener("input", () => {
      for (const line of lines.querySelectorAll(".line")) {
        line.hidden = !fits(line);
      }
      countLines(log, lines, search.value.trim());
    });
    toEnd();
    if (log.dataset.logStream) {
      followLog(log, lines, (line) => !fits(line), () => search.value.trim(), toEnd);
    }
  }
}

function followLog(log, lines, isHidden, searched, toEnd) {
  const words = log.querySelector("[data-log-words]");
  const stream = new EventSource(log.dataset.logStream);
  let attempt = null;
  let anew = true; // the stream begins with the first line again whenever it is opened
  let total = 0;
  let waiting = [];
  const draw = () => {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    if (anew) {
      lines.replaceChildren();
      anew = false;
    }
    lines.append(...waiting);
    waiting = [];
    const all = lines.querySelectorAll(".line");
    for (let index = 0; index < all.length - LOG_LINES; index += 1) {
      all[index].remove();
    }
    lines.hidden = false;
    words.hidden = true;
    countLines(log, lines, searched(), total);
    if (atEnd) {
      toEnd();
    }
  };
  stream.addEventListener("open", () => {
    anew = true;
    attempt = null;
    total = 0;
    waiting = [];
  });
  stream.addEventListener("line", (event) => {
    const line = JSON.parse(event.data);
    if (waiting.length === 0) {
      requestAnimationFrame(draw);
    }
    if (line.attempt !== null && line.attempt !== attempt) {
      attempt = line.attempt;
      waiting.push(element("h3", "", `Attempt ${attempt}`));
    }
    const look = Object.keys(LOG_LOOKS).find((one) => LOG_LOOKS[one].test(line.text)) ?? "";
    const drawn = element("div", `line ${look}${line.stream === "stderr" ? " err" : ""}`, "");
    if (line.stream === "stderr") {
      drawn.append(element("span", "mark", "stderr"));
    }
    drawn.append(line.text);
    drawn.hidden = isHidden(drawn);
    total += 1;
    waiting.push(drawn);
    if (waiting.length > 2 * LOG_LINES) {
      waiting = waiting.slice(-LOG_LINES); // a page in the background draws nothing
    }
  });
  stream.addEventListener("end", () => stream.close());
  addEventListener("pagehide", () => stream.close());
}

function element(tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes;
  made.textContent = text;
  return made;
}

function countLines(log, lines, searched, total) {
  const all = [...lines.querySelectorAll(".line")];
  const bad = all.filter((one) => one.classList.contains("bad")).length;
  const warnings = all.filter((one) => one.classList.contains("warn")).length;
  const parts = [`${total ?? all.length} ${(total ?? all.length) === 1 ? "line" : "lines"}`];
  if (searched) {
    parts[0] = `${all.filter((one) => !one.hidden).length} of ${all.length} lines`;
  }
  if (bad) {
    parts.push(`${bad} like errors`);
  }
  if (warnings) {
    parts.push(`${warnings} like warnings`);
  }
  log.querySelector("[data-log-count]").textContent = parts.join(", ");
}

function adorn(part) {
  for (const one of adornments) {
    one(part);
  }
}

guardForms();
follow();
adorn(document);
setInterval(tick, 1000);
