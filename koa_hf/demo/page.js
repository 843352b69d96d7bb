// Runs once for every gr.HTML: `element` is its root, whose content is replaced with each value, so every listener sits
// on the root. `trigger` tells the server.

// The heat map: opacity, and both pictures large. Nothing here asks the server.
element.addEventListener("input", (event) => {
  const slider = event.target.closest('input[type="range"]');
  if (!slider) return;
  slider.closest(".knee").style.setProperty("--koa-opacity", slider.value / 100);
  slider.parentElement.querySelector("output").value = slider.value;
});

element.addEventListener("click", (event) => {
  const button = event.target.closest(".enlarge");
  if (!button) return;
  const figure = button.closest("figure");
  const dialog = document.createElement("dialog");
  dialog.className = "zoom";
  dialog.setAttribute("aria-label", figure.querySelector("figcaption").firstChild.textContent);
  dialog.innerHTML =
    '<div class="bar"><button type="button" data-zoom="0.8" aria-label="Smaller">−</button>' +
    '<button type="button" data-zoom="1.25" aria-label="Larger">+</button>' +
    '<button type="button" data-close>Close</button></div><div class="scroll" tabindex="0"></div>';
  const scroll = dialog.querySelector(".scroll");
  const shown = scroll.appendChild(figure.querySelector(".stack").cloneNode(true));
  const [picture] = figure.querySelectorAll("img");
  const fit = Math.min(innerWidth / picture.naturalWidth, (innerHeight - 64) / picture.naturalHeight);
  let zoom = 1;
  const resize = (factor) => {
    zoom = Math.min(16, Math.max(1, zoom * factor));
    shown.style.width = `${picture.naturalWidth * fit * zoom}px`;
  };
  dialog.addEventListener("click", ({ target }) => {
    if (target.dataset.zoom) resize(Number(target.dataset.zoom));
    if ("close" in target.dataset) dialog.close();
  });
  dialog.addEventListener("keydown", ({ key }) => {
    if (key === "+" || key === "-") resize(key === "+" ? 1.25 : 0.8);
  });
  scroll.addEventListener("wheel", (turned) => {
    if (!turned.ctrlKey) return;
    turned.preventDefault();
    resize(turned.deltaY < 0 ? 1.25 : 0.8);
  }, { passive: false });
  dialog.addEventListener("close", () => {
    dialog.remove();
    button.focus();
  });
  figure.append(dialog);
  resize(1);
  dialog.showModal();
  scroll.focus();
});

// The film: square boxes in film pixels, kept as text in data-box and shown in percent of the film.
const SMALLEST = 0.05; // of the film's shorter side
const filmOf = (node) => {
  const film = node.closest(".film");
  return film && { film, width: Number(film.dataset.width), height: Number(film.dataset.height) };
};
const read = (box) => box.dataset.box.split(",").map(Number);

const place = (box, left, top, side) => {
  const { width, height } = filmOf(box);
  side = Math.min(Math.max(side, SMALLEST * Math.min(width, height)), 2 * Math.max(width, height));
  // A box may reach beyond the film, but its centre stays on it.
  left = Math.min(Math.max(left, -side / 2), width - side / 2);
  top = Math.min(Math.max(top, -side / 2), height - side / 2);
  const edges = [left, top, left + side, top + side].map(Math.round);
  box.dataset.box = edges.join(",");
  Object.assign(box.style, {
    left: `${(left / width) * 100}%`,
    top: `${(top / height) * 100}%`,
    width: `${(side / width) * 100}%`,
    height: `${(side / height) * 100}%`,
  });
  // Of the box, how much lies beyond each edge of the film: what is written on it stays in sight.
  const beyond = { left: -left, top: -top, right: left + side - width, bottom: top + side - height };
  for (const [edge, pixels] of Object.entries(beyond))
    box.style.setProperty(`--beyond-${edge}`, `${(Math.max(0, pixels) / side) * 100}%`);
};

const say = (film, words) => {
  film.querySelector(".status").textContent = words;
};

const dress = (box) => {
  const name = box.dataset.side ? `${box.dataset.side} knee` : "knee";
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", `Box around the ${name}: arrow keys move it, plus and minus resize it, Delete removes it`);
  box.innerHTML =
    `<span class="name">${box.dataset.side || "knee"}</span>` +
    ["nw", "ne", "sw", "se"].map((corner) => `<i class="corner ${corner}" data-corner="${corner}"></i>`).join("") +
    '<button type="button" class="remove" aria-label="Remove this box">×</button>';
  const [left, top, right] = read(box);
  place(box, left, top, right - left);
};

const count = (film) => film.querySelectorAll(".box").length;

const add = (film, left, top, side) => {
  if (count(film) >= Number(film.dataset.most)) {
    say(film, `A film has at most ${film.dataset.most} boxes; remove one first.`);
    return null;
  }
  const box = document.createElement("div");
  box.className = "box";
  box.dataset.side = "";
  box.dataset.box = [left, top, left + side, top + side].map(Math.round).join(",");
  film.querySelector(".canvas").append(box);
  dress(box);
  return box;
};

const remove = (box) => {
  const { film } = filmOf(box);
  box.remove();
  say(film, "Box removed.");
  film.querySelector(".add-box").focus();
};

const dressAll = () => element.querySelectorAll(".film .box:not([tabindex])").forEach(dress);
new MutationObserver(dressAll).observe(element, { childList: true, subtree: true });
dressAll();

element.addEventListener("click", ({ target }) => {
  const found = filmOf(target);
  if (!found) return;
  const { film, width, height } = found;
  if (target.closest(".remove")) remove(target.closest(".box"));
  if (target.closest(".add-box")) {
    const side = Math.min(width, height) / 2;
    add(film, (width - side) / 2, (height - side) / 2, side)?.focus();
  }
  if (target.closest(".grade-boxes")) {
    const boxes = [...film.querySelectorAll(".box")].map((box) => ({ box: read(box), side: box.dataset.side }));
    if (boxes.length) trigger("grade_boxes", { boxes });
    else say(film, "Draw a box around a knee first.");
  }
  if (target.closest(".grade-whole")) trigger("grade_whole", {});
});

element.addEventListener("keydown", (event) => {
  const box = event.target.closest(".box");
  if (!box || event.target !== box) return;
  const [left, top, right] = read(box);
  const { film, width, height } = filmOf(box);
  const side = right - left;
  const small = Math.max(1, Math.min(width, height) * 0.01);
  const step = event.shiftKey ? 5 * small : small;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const grows = { "+": 2 * small, "=": 2 * small, "-": -2 * small };
  if (event.key in moves) place(box, left + moves[event.key][0], top + moves[event.key][1], side);
  else if (event.key in grows) place(box, left - grows[event.key] / 2, top - grows[event.key] / 2, side + grows[event.key]);
  else if (event.key === "Delete" || event.key === "Backspace") remove(box);
  else return;
  event.preventDefault();
  if (box.isConnected) say(film, `Box at ${box.dataset.box.replaceAll(",", ", ")} pixels.`);
});

element.addEventListener("pointerdown", (event) => {
  const canvas = event.target.closest(".canvas");
  if (!canvas || event.button !== 0 || event.target.closest(".remove")) return;
  event.preventDefault();
  const { film, width, height } = filmOf(canvas);
  const frame = canvas.getBoundingClientRect();
  const pixel = ({ clientX, clientY }) => [
    ((clientX - frame.left) / frame.width) * width,
    ((clientY - frame.top) / frame.height) * height,
  ];
  const [x, y] = pixel(event);
  let box = event.target.closest(".box");
  const corner = event.target.dataset.corner;
  const [left, top, right, bottom] = box ? read(box) : [x, y, x, y];
  // Resizing and drawing hold one point still and take the longer way to the pointer as the square's side.
  const anchor = corner && [corner.includes("w") ? right : left, corner.includes("n") ? bottom : top];
  const stretch = ([toX, toY], [fromX, fromY]) => {
    const side = Math.max(Math.abs(toX - fromX), Math.abs(toY - fromY));
    return [toX < fromX ? fromX - side : fromX, toY < fromY ? fromY - side : fromY, side];
  };
  const moved = (now) => {
    const at = pixel(now);
    if (!box) {
      const [newLeft, newTop, side] = stretch(at, [x, y]);
      if (side < SMALLEST * Math.min(width, height)) return;
      box = add(film, newLeft, newTop, side);
      if (!box) ended();
    } else if (anchor) place(box, ...stretch(at, anchor));
    else if (event.target.closest(".box")) place(box, left + at[0] - x, top + at[1] - y, right - left);
    else place(box, ...stretch(at, [x, y]));
  };
  const ended = () => {
    removeEventListener("pointermove", moved);
    removeEventListener("pointerup", ended);
    removeEventListener("pointercancel", ended);
    box?.focus();
  };
  addEventListener("pointermove", moved);
  addEventListener("pointerup", ended);
  addEventListener("pointercancel", ended);
});
