// Keeps an open page live. Without it every page is whole, only as it was when it was asked for.
//
// The server says `change`, the page asks for itself again, and every element with `data-live` and an id takes the place
// of its predecessor. Nothing is drawn here.

const LOGIN = "/ui/login";

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
        setTimeout(open, 2000); // refused: the browser itself does not come again
      }
    });
  };
  open();
  addEventListener("pagehide", () => stream.close());
}

// ---- clocks: what goes on counts on

function tick() {
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

const adornments = [];

function adorn(part) {
  for (const one of adornments) {
    one(part);
  }
}

guardForms();
follow();
adorn(document);
setInterval(tick, 1000);
