// Samples: which variants stand beside each other, in which setting, and whether with their nearest training images.

function samples() {
  const settings = all(".columns");
  const controls = document.getElementById("sampled");
  if (!controls || !settings.length) return;
  const courses = Map.groupBy(settings, (each) => each.dataset.course);
  const slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "Trained until" });
  const where = element("output");
  const until = element("label", {}, "Trained until ", slider, " ", where);
  let stops; // of the course that is shown
  const stop = () => {
    const shown = stops[slider.value];
    settings.forEach((each) => (each.hidden = each !== shown));
    where.textContent = shown.dataset.stop;
    slider.setAttribute("aria-valuetext", shown.dataset.stop);
  };
  const follow = (name) => {
    stops = courses.get(name);
    slider.max = stops.length - 1;
    slider.value = slider.max; // only now, or it would be cut to the course before
    until.hidden = stops.length < 2;
    stop();
  };
  slider.addEventListener("input", stop);
  const names = [...courses.keys()];
  if (names.length > 1) controls.append(choice("Setting", names.map((name) => [name, name]), names[0], follow));
  controls.append(until);
  follow(names[0]);
  const tick = (text, checked, changed) => {
    const box = element("input", { type: "checkbox", "aria-label": text });
    box.checked = checked;
    box.addEventListener("change", () => changed(box.checked));
    return element("label", {}, box, ` ${text}`);
  };
  const variants = [...new Set(all(".column[data-name]").map((each) => each.dataset.name))];
  const some = variants.length > 8;
  for (const name of variants) {
    const show = (shown) => all(".column").filter((each) => each.dataset.name === name).forEach((each) => (each.hidden = !shown));
    const first = !some || variants.indexOf(name) < 6;
    controls.append(tick(name, first, show));
    show(first);
  }
  if (all(".nearest").length) {
    controls.append(tick("nearest training image beside each", false, (shown) => all(".nearest").forEach((each) => (each.hidden = !shown))));
  }
}

// Copying a command or a digest.

function copies(code) {
  if (!navigator.clipboard) return; // a page over plain http from another machine may not copy
  const button = element("button", { type: "button", class: "copy", "aria-label": `Copy ${code.textContent}` }, "copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 1500);
  });
  code.after(" ", button);
}

// The tab key stops at a table only where there is something to scroll to.

const scrolled = new ResizeObserver((seen) => {
  for (const region of new Set(seen.map(({ target }) => target.closest(".scroll")))) {
    if (region.scrollWidth > region.clientWidth) region.tabIndex = 0;
    else region.removeAttribute("tabindex");
  }
});

explore();
all("th", cells?.tHead ?? element("thead")).forEach(sortable);
document.getElementById("search")?.addEventListener("input", filterRows);
samples();
all("code.copied").forEach(copies);
all(".scroll, .scroll > *").forEach((each) => scrolled.observe(each));
all(".chart").forEach((box) => near.observe(box));
all("details").forEach((each) => each.addEventListener("toggle", () => all(".chart", each).forEach((box) => draw(box))));
addEventListener("load", () => drawRest(all(".chart")));
// What is printed is unfolded, but for figures that nobody has unfolded yet: paper would not wait for them.
const folded = () => all("details:not([open])").filter((each) => !each.querySelector(".chart:not([data-drawn])"));
let unfolded = [];
addEventListener("beforeprint", () => (unfolded = folded()).forEach((each) => (each.open = true)));
addEventListener("afterprint", () => unfolded.forEach((each) => (each.open = false)));
