// Questions: any quantity over any other or over an axis, coloured and split by axes, of the rows that are left.

const table = JSON.parse(document.getElementById("rows").textContent);
const chosen = {}; // by axis, the value that is left
const left = (row) => Object.entries(chosen).every(([axis, value]) => value === "" || String(row[axis]) === value);
const isNumber = (name) => name !== "seed" && table.rows.every((row) => row[name] == null || typeof row[name] === "number");
const escaped = (name) => name.replace(/[.[\]]/g, "\\$&");
const series = Array.from({ length: 7 }, (_, index) => `var(--series-${index})`);
let ask; // asks the present question again

/** Return a labelled choice; `options` are pairs of a value and what is shown. */
function choice(label, options, selected, changed) {
  const select = element("select", { "aria-label": label }, ...options.map(([value, shown]) => element("option", { value }, shown)));
  select.value = selected;
  select.addEventListener("change", () => changed(select.value));
  return element("label", {}, `${label} `, select);
}

/** Return round numbers on a logarithmic axis; of Vega's own it leaves out 1 and 10 where labels are close. */
function ticks(low, high) {
  const digits = high < 30 * low ? [1, 2, 5] : high < 1000 * low ? [1, 3] : [1];
  const powers = Array.from({ length: Math.ceil(Math.log10(high / low)) + 2 }, (_, place) => place + Math.floor(Math.log10(low)));
  return powers.flatMap((power) => digits.map((digit) => Number(`${digit}e${power}`))).filter((each) => low <= each && each <= high);
}

/** Return the channel of a quantity or an axis, with a margin around its values; names that do not fit stand upright. */
function channel(name, rows, width) {
  const title = { field: escaped(name), title: name };
  if (!isNumber(name)) {
    const names = distinct(name).map(String);
    const fits = names.every((each) => 7 * each.length < width / names.length);
    return { ...title, type: "nominal", sort: null, axis: { labelAngle: fits ? 0 : -90 } };
  }
  const numbers = rows.map((row) => row[name]);
  let [low, high] = [Math.min(...numbers), Math.max(...numbers)];
  const log = low > 0 && high > 5 * low;
  const margin = log ? (high / low) ** 0.06 : 0.06 * (high - low || Math.abs(high) || 1);
  [low, high] = log ? [low / margin, high * margin] : [low - margin, high + margin];
  const scale = { type: log ? "log" : "linear", nice: false, domain: [low, high] };
  const values = log ? { values: ticks(low, high) } : {};
  return { ...title, type: "quantitative", scale, axis: { ...values, labelExpr: "format(datum.value, ',~r')" } };
}

const distinct = (name, rows = table.rows) => [...new Set(rows.map((row) => row[name]))];

/** Return the figure of a question in Vega-Lite, for a box of some width. */
function question(asked, width) {
  const rows = table.rows.filter((row) => left(row) && row[asked.y] != null && row[asked.x] != null);
  const data = { name: "table", values: rows };
  if (!rows.length) {
    const values = [{ note: "nothing is left of what was chosen" }];
    return { data: { name: "table", values }, width: "container", height: 60, mark: "text", encoding: { text: { field: "note" } } };
  }
  // What is asked, and what tells one draw from another; the table below has the rest.
  const shown = ["cell", asked.y, ...(asked.y === table.quantities[0] ? ["error"] : []), asked.x, asked.colour, asked.panels, "draw"].filter(Boolean);
  const tooltip = [...new Set(shown)].map((name) => ({ field: escaped(name), title: name }));
  const columns = Math.max(1, Math.floor(width / (60 + 8 * Math.max(...distinct(asked.colour, rows).map((name) => String(name).length)))));
  const told = { field: escaped(asked.colour), type: "nominal", title: asked.colour, sort: null, legend: { columns } };
  const beside = asked.panels ? Math.max(1, Math.floor(width / 320)) : 1;
  const [x, y] = [asked.x, asked.y].map((name) => channel(name, rows, width / beside - 75));
  const encoding = { x, y, color: { ...told, scale: { range: series } } };
  const mark = { type: "point", size: 60, filled: false, opacity: 1 };
  const layer = [{ mark, encoding: { shape: told, tooltip, href: { field: "manifest" } } }];
  if (x.type === "quantitative" && table.axes.includes(asked.x)) {
    layer.unshift({ mark: { type: "line", point: false }, encoding: { y: { ...y, aggregate: "mean" } } });
  }
  if (!asked.panels) return { data, width: "container", height: 320, encoding, layer };
  const facet = { field: escaped(asked.panels), type: "nominal", title: asked.panels, sort: distinct(asked.panels, rows) };
  const spec = { width: Math.max(140, width / beside - 75), height: 220, encoding, layer };
  return { data, facet, columns: beside, autosize: "pad", spec };
}

function explore() {
  const box = document.getElementById("explorer");
  const [metric] = table.quantities;
  if (!metric || !box) return;
  const named = (names) => names.map((name) => [name, name]);
  const asked = { x: table.axes[0], y: metric, colour: table.axes[1] ?? table.axes[0], panels: "" };
  const source = box.querySelector("script");
  const common = JSON.parse(source.textContent);
  const draws = (rows) => rows.filter((row) => row.status === "finished").length;
  ask = () => {
    source.textContent = JSON.stringify({ ...common, ...question(asked, box.clientWidth) });
    box.setAttribute("aria-label", `${asked.y} over ${asked.x}; the table below has the numbers.`);
    const count = `${draws(table.rows.filter(left))} of ${draws(table.rows)} finished draws`;
    document.getElementById("left").textContent = count;
    draw(box, true);
  };
  const set = (key) => (value) => {
    asked[key] = value;
    ask();
  };
  document.getElementById("asks").append(
    choice("Show", named(table.quantities), asked.y, set("y")),
    choice("over", named([...table.axes, ...table.quantities]), asked.x, set("x")),
    choice("coloured by", named(table.axes), asked.colour, set("colour")),
    choice("a panel for each", [["", "–"], ...named(table.axes)], "", set("panels")),
  );
  for (const axis of table.axes) {
    const values = distinct(axis).map(String);
    if (values.length < 2) continue;
    chosen[axis] = "";
    const options = [["", "all"], ...values.map((value) => [value, value === "null" ? "–" : value])];
    const only = (value) => {
      chosen[axis] = value;
      ask();
      filterRows();
    };
    document.getElementById("filters").append(choice(axis, options, "", only));
  }
  ask();
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
