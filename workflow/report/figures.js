// What the page does beside being read, one script of three files: figures.js draws and saves, questions.js asks, sorts and
// filters, page.js shows samples, copies, unfolds and begins. All that they need is in the page; nothing is fetched.

const study = document.body.dataset.study;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Return an element with attributes and content. */
function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...content);
  return made;
}

// Figures: each is drawn when a reader comes near it. Their colours are the page's variables, and so follow it.

async function draw(box, again = false) {
  if (box.closest("details:not([open])")) return; // drawn when it opens
  if (!box.clientWidth || (box.dataset.drawn === String(box.clientWidth) && !again)) return;
  const place = box.querySelector(".drawing") ?? element("div", { class: "drawing", "aria-hidden": "true" });
  box.append(place);
  box.dataset.drawn = box.clientWidth;
  try {
    const specification = JSON.parse(box.querySelector("script").textContent);
    const { view } = await vegaEmbed(place, specification, { renderer: "svg", actions: false, logLevel: 1 });
    box.view?.finalize();
    box.view = view;
  } catch (error) {
    place.textContent = `This figure could not be drawn: ${error.message}`;
    return;
  }
  if (!box.nextElementSibling?.matches(".save")) box.after(saver(box));
}

/**
 * Return the buttons that save a figure: as a picture in light colours, or as its numbers. The tab key stops at them once;
 * arrows go from one to the next.
 */
function saver(box) {
  const buttons = ["SVG", "PNG", "CSV"].map((kind, place) => {
    const label = `Save ${box.dataset.name} as ${kind}`;
    const button = element("button", { type: "button", "aria-label": label, tabindex: place ? -1 : 0 }, kind);
    button.addEventListener("click", () => save(box, kind.toLowerCase()));
    return button;
  });
  const bar = element("div", { class: "save", role: "toolbar", "aria-label": `Save ${box.dataset.name}` }, "Save as ", ...buttons);
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (buttons.indexOf(event.target) + step + buttons.length) % buttons.length;
    buttons.forEach((button, place) => (button.tabIndex = place === next ? 0 : -1));
    buttons[next].focus();
  });
  return bar;
}

async function save(box, kind) {
  const href = kind === "csv" ? csv(box.view.data("table")) : await picture(box, kind);
  element("a", { href, download: `${study}-${box.dataset.name.replace(/[ ,]+/g, "-")}.${kind}` }).click();
  if (kind === "csv") setTimeout(() => URL.revokeObjectURL(href), 1000); // not before it is read
}

/** Return a text with the page's light colours in place of its variables. */
function coloured(text) {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => style.getPropertyValue(name).trim().replace(/^light-dark\(([^,]+),.*\)$/, "$1");
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => light(name));
}

async function picture(box, kind) {
  const light = { ...JSON.parse(coloured(box.querySelector("script").textContent)), background: "white" };
  if (light.width === "container") light.width = box.clientWidth;
  const { view } = await vegaEmbed(element("div"), light, { renderer: "none", actions: false, logLevel: 1 });
  return view.toImageURL(kind, kind === "png" ? 2 : 1);
}

function csv(rows) {
  const names = Object.keys(Object.assign({}, ...rows));
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value);
  const lines = [names, ...rows.map((row) => names.map((name) => row[name] ?? ""))];
  const text = lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
  return URL.createObjectURL(new Blob([text], { type: "text/csv" }));
}

const near = new IntersectionObserver((seen) => seen.forEach((each) => each.isIntersecting && draw(each.target)), {
  rootMargin: "800px",
});
let resized;
let width = innerWidth;
addEventListener("resize", () => {
  if (width === innerWidth) return; // telephones tell of their address bar too
  width = innerWidth;
  clearTimeout(resized);
  resized = setTimeout(() => {
    all(".chart[data-drawn]").forEach((box) => draw(box));
    ask?.();
  }, 200);
});
// Who prints the page has not been near all of it: the rest is drawn when there is nothing else to do.
const idle = globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 200));
function drawRest(boxes) {
  const box = boxes.shift();
  if (box) idle(() => draw(box).then(() => drawRest(boxes)));
}
