// What the page does beside being read: it draws its figures, answers questions to its rows, sorts, filters, copies, saves.
// All that it needs is in the page; nothing is fetched.

const dark = matchMedia("(prefers-color-scheme: dark)");
const study = document.body.dataset.study;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

/** Return an element with attributes and content. */
function element(name, attributes = {}, ...content) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...content);
  return made;
}

// Figures: each is drawn when a reader comes near it, in the colours of the page.

/** Return a text with colours in place of the page's variables; `theme` is 0 for light and 1 for dark. */
function coloured(text, theme) {
  const style = getComputedStyle(document.documentElement);
  return text.replace(/var\((--[\w-]+)\)/g, (_, name) => {
    const value = style.getPropertyValue(name).trim();
    return /^light-dark\(([^,]+),([^,]+)\)$/.exec(value)?.[1 + theme].trim() ?? value;
  });
}

const specification = (box, theme) => JSON.parse(coloured(box.querySelector("script").textContent, theme));

async function draw(box, again = false) {
  const theme = Number(dark.matches);
  const key = `${theme} ${box.clientWidth}`;
  if (!box.clientWidth || (box.dataset.drawn === key && !again)) return; // closed, and drawn when it opens; or drawn
  box.dataset.drawn = key;
  const place = box.querySelector(".drawing") ?? element("div", { class: "drawing", "aria-hidden": "true" });
  box.append(place);
  box.view?.finalize();
  const options = { renderer: "svg", actions: false, logLevel: 1, tooltip: { theme: theme ? "dark" : "light" } };
  box.view = (await vegaEmbed(place, specification(box, theme), options)).view;
  if (!box.nextElementSibling?.matches(".save")) box.after(saver(box));
}

/** Return the buttons that save a figure: as a picture in light colours, or as its numbers. */
function saver(box) {
  const buttons = ["SVG", "PNG", "CSV"].map((kind) => {
    const button = element("button", { type: "button", "aria-label": `Save ${box.dataset.name} as ${kind}` }, kind);
    button.addEventListener("click", () => save(box, kind.toLowerCase()));
    return button;
  });
  return element("p", { class: "save" }, "Save as ", ...buttons);
}

async function save(box, kind) {
  const href = kind === "csv" ? csv(box.view.data("table")) : await picture(box, kind);
  element("a", { href, download: `${study}-${box.dataset.name}.${kind}` }).click();
}

async function picture(box, kind) {
  const light = { ...specification(box, 0), background: "white" };
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
const redrawn = () => all(".chart[data-drawn]").forEach((box) => draw(box));
dark.addEventListener("change", redrawn);
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(redrawn, 200);
});
// Who prints the page has not been near all of it: the rest is drawn when there is nothing else to do.
const idle = globalThis.requestIdleCallback ?? ((work) => setTimeout(work, 200));
function drawRest(left) {
  const box = left.shift();
  if (box) idle(() => draw(box).then(() => drawRest(left)));
}

// Questions: any quantity over any other or over an axis, coloured and split by axes, of the rows that are left.

const table = JSON.parse(document.getElementById("rows").textContent);
const chosen = {}; // by axis, the value that is left
const left = (row) => Object.entries(chosen).every(([axis, value]) => value === "" || String(row[axis]) === value);
const isNumber = (name) => table.rows.every((row) => row[name] == null || typeof row[name] === "number");
const escaped = (name) => name.replace(/[.[\]]/g, "\\$&");

/** Return a labelled choice; `options` are pairs of a value and what is shown. */
function choice(label, options, selected, changed) {
  const select = element("select", { "aria-label": label }, ...options.map(([value, shown]) => element("option", { value }, shown)));
  select.value = selected;
  select.addEventListener("change", () => changed(select.value));
  return element("label", {}, `${label} `, select);
}

function question(ask, width) {
  const rows = table.rows.filter((row) => left(row) && row[ask.y] != null && row[ask.x] != null);
  const channel = (name) => {
    const numbers = rows.map((row) => row[name]);
    if (!isNumber(name)) return { field: escaped(name), type: "nominal", title: name, sort: null };
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    const log = low > 0 && high > 5 * low;
    const scale = log ? { type: "log" } : { type: "linear", zero: false };
    Object.assign(scale, { nice: false, padding: 12 });
    return { field: escaped(name), type: "quantitative", title: name, scale };
  };
  const colour = {
    field: escaped(ask.colour),
    type: "nominal",
    title: ask.colour,
    sort: null,
    scale: { range: Array.from({ length: 7 }, (_, index) => `var(--series-${index})`) },
  };
  const shown = ["cell", ...table.axes, "draw", ...table.quantities, "error", "model"];
  const tooltip = [...new Set(shown)].map((name) => ({ field: escaped(name), title: name }));
  const x = channel(ask.x);
  const layer = [
    { mark: { type: "point", size: 60 }, encoding: { shape: { ...colour, scale: {} }, tooltip, href: { field: "manifest" } } },
  ];
  if (x.type === "quantitative" && table.axes.includes(ask.x)) {
    layer.unshift({ mark: "line", encoding: { y: { ...channel(ask.y), aggregate: "mean" } } });
  }
  const plot = { encoding: { x, y: channel(ask.y), color: colour }, layer };
  if (!ask.panels) return { data: { name: "table", values: rows }, width, height: 320, ...plot };
  const columns = Math.max(1, Math.floor(width / 320));
  const facet = { field: escaped(ask.panels), type: "nominal", title: ask.panels, sort: null };
  const spec = { width: width / columns - 90, height: 220, ...plot };
  return { data: { name: "table", values: rows }, facet, columns, spec };
}

function explore() {
  const box = document.getElementById("explorer");
  const [metric] = table.quantities;
  if (!metric) return;
  const named = (names) => names.map((name) => [name, name]);
  const ask = { x: table.axes[0], y: metric, colour: table.axes[1] ?? table.axes[0], panels: "" };
  const common = JSON.parse(box.querySelector("script").textContent);
  const source = box.querySelector("script");
  const show = () => {
    const whole = question(ask, box.clientWidth - 100);
    source.textContent = JSON.stringify({ ...common, ...whole });
    box.setAttribute("aria-label", `${ask.y} over ${ask.x}; the table below has the numbers.`);
    const count = new Set((whole.data.values ?? []).map((row) => row.cell)).size;
    document.getElementById("left").textContent = `${count} of ${new Set(table.rows.map((row) => row.cell)).size} cells`;
    draw(box, true);
  };
  const set = (key) => (value) => {
    ask[key] = value;
    show();
  };
  document.getElementById("asks").append(
    choice("Show", named(table.quantities), ask.y, set("y")),
    choice("over", named([...table.axes, ...table.quantities]), ask.x, set("x")),
    choice("coloured by", named(table.axes), ask.colour, set("colour")),
    choice("a panel for each", [["", "–"], ...named(table.axes)], "", set("panels")),
  );
  const filters = document.getElementById("filters");
  for (const axis of table.axes) {
    const values = [...new Set(table.rows.map((row) => String(row[axis])))];
    if (values.length < 2) continue;
    chosen[axis] = "";
    filters.append(
      choice(axis, [["", "all"], ...values.map((value) => [value, value === "null" ? "–" : value])], "", (value) => {
        chosen[axis] = value;
        show();
        filterRows();
      }),
    );
  }
  box.ask = show;
  addEventListener("resize", () => setTimeout(show, 250));
  show();
}

// The table of every cell: sorted by a click on a heading, searched, and filtered by the same choices.

const cells = document.getElementById("cells");
const lines = cells ? all("tbody tr", cells) : [];

function filterRows() {
  const words = document.getElementById("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  lines.forEach((line) => {
    const text = (line.dataset.text ??= line.textContent.toLowerCase());
    line.hidden = !(left(table.rows[line.dataset.row]) && words.every((word) => text.includes(word)));
    count += !line.hidden;
  });
  document.getElementById("found").textContent = `${count} of ${lines.length} rows`;
}

function sortable(head, column) {
  const button = element("button", { type: "button" }, ...head.childNodes);
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    all("th[aria-sort]", cells).forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const value = (line) => line.cells[column].dataset.value ?? line.cells[column].textContent;
    const missing = (text) => text === "–" || text === "";
    const compare = (one, other) => {
      const [a, b] = [value(one), value(other)];
      if (missing(a) || missing(b)) return missing(a) - missing(b); // last, whichever way
      const order = Number(a) - Number(b) || a.localeCompare(b, "en", { numeric: true });
      return falling ? -order : order;
    };
    cells.tBodies[0].append(...lines.sort(compare));
  });
}

// Samples: which variants stand beside each other, in which setting, and whether with their nearest training images.

function samples() {
  const settings = all(".columns");
  const controls = document.getElementById("sampled");
  if (!controls || !settings.length) return;
  if (settings.length > 1) {
    const show = (name) => settings.forEach((each) => (each.hidden = each.dataset.setting !== name));
    controls.append(choice("Setting", settings.map((each) => [each.dataset.setting, each.dataset.setting]), settings[0].dataset.setting, show));
    show(settings[0].dataset.setting);
  }
  const tick = (text, checked, changed) => {
    const box = element("input", { type: "checkbox", "aria-label": text });
    box.checked = checked;
    box.addEventListener("change", () => changed(box.checked));
    return element("label", {}, box, ` ${text}`);
  };
  const names = [...new Set(all(".column[data-name]").map((each) => each.dataset.name))];
  const some = names.length > 8;
  for (const name of names) {
    const show = (shown) => all(".column").filter((each) => each.dataset.name === name).forEach((each) => (each.hidden = !shown));
    const first = !some || names.indexOf(name) < 6;
    controls.append(tick(name, first, show));
    show(first);
  }
  if (all(".nearest").length) {
    controls.append(tick("nearest training image beside each", false, (shown) => all(".nearest").forEach((each) => (each.hidden = !shown))));
  }
}

// Copying a command or a digest.

function copies(code) {
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy ${code.textContent}` }, "copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  code.after(" ", button);
}

explore();
all("th", cells?.tHead ?? element("thead")).forEach(sortable);
document.getElementById("search")?.addEventListener("input", filterRows);
samples();
all("code.copied").forEach(copies);
all(".chart").forEach((box) => near.observe(box));
all("details").forEach((each) => each.addEventListener("toggle", () => all(".chart", each).forEach((box) => draw(box))));
addEventListener("load", () => drawRest(all(".chart")));
