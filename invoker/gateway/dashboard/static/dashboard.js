// Keeps an open page live. Without it every page is whole, only as it was when it was asked for.
//
// The server says `change`, the page asks for itself again, and every element with `data-live` and an id takes the place
// of its predecessor. Nothing is drawn here.

const LOGIN = "/ui/login";
const REDRAWN_SECONDS = 5;
const AGAIN_SECONDS = 2;
const AGAIN_SECONDS_AT_MOST = 60;

// ---- streams: open only while somebody looks

// A browser has six connections to a gateway for all its tabs: those that nobody sees must leave them to the others.
// Nothing is lost by it, since every stream begins with the whole, or with the word to ask for it.
function whileSeen(address, listen) {
  let stream = null;
  let timer = 0;
  let isOver = false;
  const close = () => {
    clearTimeout(timer);
    stream?.close();
    stream = null;
  };
  const open = () => {
    close();
    if (document.hidden || isOver) {
      return;
    }
    const opened = new EventSource(address);
    stream = opened;
    opened.addEventListener("error", () => {
      if (stream === opened && opened.readyState === EventSource.CLOSED) {
        timer = setTimeout(open, AGAIN_SECONDS * 1000); // refused: the browser itself does not come again
      }
    });
    listen(opened);
  };
  document.addEventListener("visibilitychange", open);
  addEventListener("pagehide", close);
  open();
  return () => {
    isOver = true;
    close();
  };
}

// ---- live parts

let asking = false;
let again = false;
let held = false; // a part is older than what the server said: somebody types in it, or has selected some of it
let timer = 0;
let isFollowing = false;
let isStale = false;

async function refresh() {
  if (document.hidden) {
    return; // the stream says `change` as soon as the page is seen again
  }
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  clearTimeout(timer);
  try {
    isStale = !(await drawn(await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" })));
  } catch {
    stale("The gateway does not answer just now.", AGAIN_SECONDS);
  } finally {
    asking = false;
  }
  showMark();
  if (again) {
    again = false;
    if (!isStale) {
      await refresh();
    }
  }
}

// Whether the page is now as the answer says.
async function drawn(answer) {
  if (answer.redirected && new URL(answer.url).pathname === LOGIN) {
    location.assign(answer.url); // the key is not valid any more
    return false;
  }
  const type = answer.headers.get("content-type") ?? "";
  const page = type.startsWith("text/html") ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  if (answer.ok && page) {
    replaceLive(page);
    return true;
  }
  const words = page?.querySelector("main .lead")?.textContent.trim() || `The gateway answers ${answer.status} just now.`;
  const passes = answer.ok || answer.status === 429 || answer.status >= 500;
  stale(words, passes ? Number(answer.headers.get("retry-after")) || AGAIN_SECONDS : 0);
  return false;
}

// The page stays as it was and says so; with seconds it is asked for again after them.
function stale(words, seconds) {
  isStale = true;
  const notices = document.getElementById("notices");
  if (notices && notices.textContent.trim() !== words) {
    const notice = element("p", "notice bad", words);
    notice.setAttribute("role", "status");
    notices.replaceChildren(notice);
  }
  clearTimeout(timer);
  if (seconds) {
    timer = setTimeout(refresh, Math.min(seconds, AGAIN_SECONDS_AT_MOST) * 1000);
  }
}

function showMark() {
  const mark = document.querySelector("[data-live-mark]");
  if (mark) {
    mark.hidden = !isFollowing || isStale;
  }
}

function replaceLive(fresh) {
  held = false;
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const next = fresh.getElementById(old.id);
    if (!next || old.isEqualNode(next)) {
      continue;
    }
    if (isInUse(old)) {
      held = true;
      continue;
    }
    const kept = remembered(old);
    const imported = document.importNode(next, true);
    keepTicked(old, imported);
    old.replaceWith(imported);
    recall(imported, kept);
    adorn(imported);
    if (kept.focus) {
      placed(imported, kept.focus).focus({ preventScroll: true }); // now that nothing of it is hidden any more
    }
  }
}

// Nobody's words are taken from under his fingers, nor the text that he is about to copy.
function isInUse(part) {
  const selection = getSelection();
  const isSelected = selection.rangeCount > 0 && !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(part);
  return isSelected || (part.contains(document.activeElement) && isTyping(document.activeElement));
}

function isTyping(element) {
  return element.matches("input:not([type=checkbox]):not([type=radio]), textarea, select");
}

function askWhatWasHeld() {
  if (held && getSelection().isCollapsed) {
    refresh();
  }
}

// What the reader did to a part that is replaced: boxes ticked, folds opened, where the keyboard and the scroll bars are.
function remembered(part) {
  const keys = (selector) => new Set([...part.querySelectorAll(selector)].map((one) => one.dataset.key));
  return {
    ticked: keys("input[data-key]:checked"),
    opened: keys("details[data-key][open]"),
    folded: keys("details[data-key]:not([open])"),
    focus: part.contains(document.activeElement) ? place(part, document.activeElement) : null,
    scrolled: [...part.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]),
  };
}

// Rows that are ticked and not in the list any more go on below it: what is selected is what is seen.
function keepTicked(old, next) {
  const ticked = [...old.querySelectorAll("tbody input[data-key]:checked")];
  const left = ticked.filter((one) => !next.querySelector(`input[data-key="${CSS.escape(one.dataset.key)}"]`));
  if (left.length === 0) {
    return;
  }
  const table = left[0].closest("table");
  if (!next.querySelector("tbody")) {
    const area = (table.closest(".scroll") ?? table).cloneNode(true);
    area.querySelector("tbody").replaceChildren();
    next.append(area);
  }
  const words = element("td", "quiet", "Selected, and not in this list any more. As they were when they left it:");
  words.colSpan = table.querySelector("thead tr").cells.length;
  const line = element("tr", "", "");
  line.append(words);
  next.querySelector("tbody").append(line, ...left.map((one) => one.closest("tr")));
}

const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";
const OWNERS = "tr[data-row], details[data-key]"; // what has a name of its own, wherever in the part it goes

const ownerOf = (one) => one.parentElement.closest(OWNERS);
const nameOf = (owner) => owner?.dataset.row ?? owner?.dataset.key;
const looksOf = (one) => `${one.tagName} ${one.getAttribute("aria-label") ?? one.textContent.trim()}`;

// Which element of a part that is: the first, second, … that looks so in its row, and the how manieth of all.
function place(part, one) {
  const all = [...part.querySelectorAll(FOCUSABLE)];
  const [owner, looks] = [nameOf(ownerOf(one)), looksOf(one)];
  const rank = alike(part, owner, looks).indexOf(one);
  return { id: one.id, owner, looks, rank, tag: one.tagName, index: all.indexOf(one) };
}

function alike(part, owner, looks) {
  const all = [...part.querySelectorAll(FOCUSABLE)];
  return all.filter((other) => nameOf(ownerOf(other)) === owner && looksOf(other) === looks);
}

function placed(part, at) {
  const byId = at.id && part.querySelector(`#${CSS.escape(at.id)}`);
  const found = byId || alike(part, at.owner, at.looks)[at.rank];
  if (found) {
    return found;
  }
  const owner = at.owner && [...part.querySelectorAll(OWNERS)].some((one) => nameOf(one) === at.owner);
  const there = at.owner && !owner ? part.querySelectorAll(FOCUSABLE)[at.index] : null; // the row is gone
  if (there?.tagName === at.tag) {
    return there;
  }
  part.tabIndex = -1; // what is gone must not become another button, nor the keyboard begin at the top of the page
  return part;
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
}

function follow() {
  const address = document.body.dataset.stream;
  if (!address) {
    return;
  }
  const becomes = (following) => {
    isFollowing = following;
    showMark();
  };
  document.addEventListener("selectionchange", askWhatWasHeld);
  document.addEventListener("focusout", () => setTimeout(askWhatWasHeld));
  document.addEventListener("visibilitychange", () => becomes(false));
  whileSeen(address, (stream) => {
    stream.addEventListener("change", refresh);
    stream.addEventListener("open", () => becomes(true));
    stream.addEventListener("error", () => {
      becomes(false);
      if (stream.readyState === EventSource.CLOSED) {
        refresh(); // refused: leads to signing in where that is why, or says why
      }
    });
  });
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

const SENDING_SECONDS = 10;

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
    setTimeout(() => delete form.dataset.sent, SENDING_SECONDS * 1000); // given up by the reader, or lost on the way
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
    log.querySelector("[data-log-tools]").hidden = !lines.querySelector(".line"); // there is nothing to search in none
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
  let attempt = null;
  let anew = true; // the stream begins with the first line again whenever it is opened
  let top = null; // where the reader was before that, until there are lines enough again
  let total = 0;
  let waiting = [];
  const draw = () => {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    if (anew) {
      top = atEnd ? null : lines.scrollTop;
      lines.replaceChildren();
      anew = false;
    }
    lines.append(...waiting);
    waiting = [];
    trimLines(lines);
    lines.hidden = false;
    words.hidden = true;
    log.querySelector("[data-log-tools]").hidden = false;
    countLines(log, lines, searched(), total);
    if (top !== null) {
      lines.scrollTop = top;
      top = lines.scrollTop < top ? top : null;
    } else if (atEnd) {
      toEnd();
    }
  };
  const opened = () => {
    anew = true;
    attempt = null;
    total = 0;
    waiting = [];
  };
  const take = (line) => {
    if (waiting.length === 0) {
      requestAnimationFrame(draw);
    }
    if (line.attempt !== null && line.attempt !== attempt) {
      attempt = line.attempt;
      waiting.push(element("h3", "", `Attempt ${attempt}`));
    }
    const drawn = logLine(line);
    drawn.hidden = isHidden(drawn);
    total += 1;
    waiting.push(drawn);
    if (waiting.length > 2 * LOG_LINES) {
      const heading = waiting.slice(0, -LOG_LINES).findLast((one) => one.tagName === "H3");
      waiting = waiting.slice(-LOG_LINES);
      if (heading && waiting[0].tagName !== "H3") {
        waiting.unshift(heading);
      }
    }
  };
  const end = whileSeen(log.dataset.logStream, (stream) => {
    stream.addEventListener("open", opened);
    stream.addEventListener("line", (event) => take(JSON.parse(event.data)));
    stream.addEventListener("end", () => {
      end();
      log.querySelector("[data-log-count]").setAttribute("role", "status"); // from here on it changes by a search only
    });
  });
}

function logLine(line) {
  const look = Object.keys(LOG_LOOKS).find((one) => LOG_LOOKS[one].test(line.text)) ?? "";
  const drawn = element("div", `line ${look}${line.stream === "stderr" ? " err" : ""}`, "");
  if (line.stream === "stderr") {
    drawn.append(element("span", "mark", "stderr"));
  }
  drawn.append(line.text);
  return drawn;
}

// The newest lines stay, each below the heading of its attempt; headings without lines go.
function trimLines(lines) {
  const all = lines.querySelectorAll(".line");
  for (let index = 0; index < all.length - LOG_LINES; index += 1) {
    all[index].remove();
  }
  for (const heading of lines.querySelectorAll("h3")) {
    if (heading.nextElementSibling?.tagName === "H3") {
      heading.remove();
    }
  }
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
  const parts = [`${(total ?? all.length).toLocaleString("en")} ${(total ?? all.length) === 1 ? "line" : "lines"}`];
  if (searched) {
    parts[0] = `${all.filter((one) => !one.hidden).length} of ${all.length} lines`;
  }
  if (bad) {
    parts.push(`${bad} likely ${bad === 1 ? "error" : "errors"}`);
  }
  if (warnings) {
    parts.push(`${warnings} likely ${warnings === 1 ? "warning" : "warnings"}`);
  }
  log.querySelector("[data-log-count]").textContent = parts.join(", ");
}

function adorn(part) {
  for (const one of adornments) {
    one(part);
  }
}

// A page that could not be had for now is asked for again by itself.
function comeAgain() {
  if ("again" in document.body.dataset) {
    setTimeout(() => location.reload(), 2000);
  }
}

guardForms();
follow();
comeAgain();
adorn(document);
setInterval(tick, 1000);
