// The film editor. Its value is a list of square boxes {box: [left, top, right, bottom], side, by_user} in film pixels;
// props.width and props.height are the film's, and props.knees are the places whose side is known, {box, side}. On the page
// a box keeps its edges as text in data-box and is placed in percent.
const SMALLEST = 0.05; // of the film's shorter side
const canvas = element.querySelector(".canvas");
const all = () => [...canvas.querySelectorAll(".box")];
const edgesOf = (box) => box.dataset.box.split(",").map(Number);
const say = (words) => {
  element.querySelector(".status").textContent = words;
};
const commit = () => {
  props.value = all().map((box) => ({ box: edgesOf(box), side: box.dataset.side || null, by_user: Boolean(box.set) }));
};

// A side belongs to a knee and not to a box: a box has the side of the knee that it lies on, or what the visitor set there.
const SAME_KNEE = 0.5; // least share of the smaller box's area that two boxes on one knee have in common
const shared = ([l, t, r, b], [left, top, right, bottom]) => {
  const across = Math.max(0, Math.min(r, right) - Math.max(l, left));
  const down = Math.max(0, Math.min(b, bottom) - Math.max(t, top));
  return (across * down) / Math.min((r - l) * (b - t), (right - left) * (bottom - top));
};
const lateralise = (box) => {
  const edges = edgesOf(box);
  const nearest = (places) =>
    places.filter((place) => shared(edges, place.box) >= SAME_KNEE)
      .sort((one, other) => shared(edges, other.box) - shared(edges, one.box))[0];
  if (box.set && !nearest([box.set])) box.set = null;
  const side = (box.set || nearest(props.knees))?.side || "";
  box.dataset.side = side;
  box.classList.toggle("by-user", Boolean(box.set));
  const name = side ? `${side} knee` : "knee, side unknown";
  const other = side === "right" ? "left" : "right";
  const label = box.querySelector(".name");
  label.querySelector("span").textContent = (side || "Side?") + (box.set ? " (you)" : "");
  label.setAttribute("aria-label", `${name}${box.set ? ", set by you" : ""}; make it the ${other} knee`);
  box.setAttribute(
    "aria-label",
    `Box around the ${name}: arrow keys move it, plus and minus resize it, R and L set its side, Delete removes it`,
  );
};
const setSide = (box, side) => {
  box.set = { box: edgesOf(box), side };
  lateralise(box);
  commit();
  say(`You set this box to the ${side} knee.`);
};

const place = (box, left, top, side) => {
  const { width, height } = props;
  side = Math.min(Math.max(side, SMALLEST * Math.min(width, height)), 2 * Math.max(width, height));
  // A box may reach beyond the film, but its centre stays on it.
  left = Math.min(Math.max(left, -side / 2), width - side / 2);
  top = Math.min(Math.max(top, -side / 2), height - side / 2);
  box.dataset.box = [left, top, left + side, top + side].map(Math.round).join(",");
  Object.assign(box.style, {
    left: `${(left / width) * 100}%`,
    top: `${(top / height) * 100}%`,
    width: `${(side / width) * 100}%`,
    height: `${(side / height) * 100}%`,
  });
  // The share of the box beyond each edge of the film, so that its name and handles stay in sight.
  const beyond = { left: -left, top: -top, right: left + side - width, bottom: top + side - height };
  for (const [edge, pixels] of Object.entries(beyond))
    box.style.setProperty(`--beyond-${edge}`, `${(Math.max(0, pixels) / side) * 100}%`);
  lateralise(box);
};

const add = (left, top, side, set) => {
  const box = document.createElement("div");
  box.className = "box";
  box.set = set || null; // where the visitor set which side
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.innerHTML =
    '<button type="button" class="name"><span></span><i aria-hidden="true">⇄</i></button>' +
    ["nw", "ne", "sw", "se"].map((corner) => `<i class="corner ${corner}" data-corner="${corner}"></i>`).join("") +
    '<button type="button" class="remove" aria-label="Remove this box">×</button>';
  canvas.append(box);
  place(box, left, top, side);
  return box;
};

const draw = (left, top, side) => {
  if (all().length < props.most) return add(left, top, side);
  say(`A film has at most ${props.most} boxes; remove one first.`);
  return null;
};

const remove = (box) => {
  box.remove();
  commit();
  say("Box removed.");
  element.querySelector(".add-box").focus();
};

const showBoxes = () => {
  all().forEach((box) => box.remove());
  for (const { box, side, by_user } of props.value) add(box[0], box[1], box[2] - box[0], by_user && { box, side });
  say("");
};
// The window is shown by a filter on the picture, so that it follows the sliders; the server sets it on what is graded.
const find = (selector) => element.querySelector(selector);
const showWindow = () => {
  const [level, width] = [find(".level"), find(".width")].map((slider) => Number(slider.value));
  for (const [name, value] of [["level", level], ["width", width]]) find(`.${name}`).previousElementSibling.value = value;
  for (const channel of element.querySelectorAll("feComponentTransfer > *")) {
    channel.setAttribute("slope", 100 / width);
    channel.setAttribute("intercept", 0.5 - level / width);
  }
};
const setWindow = ([level, width]) => {
  find(".level").value = level;
  find(".width").value = width;
  showWindow();
};
const showAdjustment = () => {
  const { mirrored, inverted, window, missed } = props;
  find('[data-change="mirror"]').setAttribute("aria-pressed", String(mirrored));
  find('[data-change="invert"]').setAttribute("aria-pressed", String(inverted));
  find(".missed").hidden = !missed;
  setWindow(window);
};
const show = () => {
  showBoxes();
  showAdjustment();
};
watch(["value", "picture", "mirrored", "inverted", "window", "missed"], show);
show();

element.addEventListener("input", showWindow);

element.addEventListener("click", ({ target }) => {
  const { width, height } = props;
  if (target.closest(".remove")) remove(target.closest(".box"));
  if (target.closest(".name")) {
    const box = target.closest(".box");
    setSide(box, box.dataset.side === "right" ? "left" : "right");
  }
  const { change, preset } = target.closest("button")?.dataset || {};
  if (change) trigger("adjust", { change });
  if (preset) setWindow(preset === "auto" ? props.auto : preset.split(",").map(Number));
  if (preset || target.closest(".set-window"))
    trigger("adjust", { change: "window", window: [Number(find(".level").value), Number(find(".width").value)] });
  if (target.closest(".open-window")) {
    find(".window").hidden = !find(".window").hidden;
    find(".open-window").setAttribute("aria-expanded", String(!find(".window").hidden));
  }
  if (target.closest(".add-missed")) {
    const [left, top, right] = props.missed;
    find(".missed").hidden = true;
    const box = draw(left, top, right - left);
    if (box) {
      commit();
      box.focus();
    }
  }
  if (target.closest(".add-box")) {
    const side = Math.min(width, height) / 2;
    const box = draw((width - side) / 2, (height - side) / 2, side);
    if (box) {
      commit();
      box.focus();
    }
  }
  if (target.closest(".grade-boxes")) {
    if (all().length) trigger("grade_boxes");
    else say("Draw a box around a knee first.");
  }
  if (target.closest(".grade-whole")) trigger("grade_whole");
});

element.addEventListener("keydown", (event) => {
  const box = event.target.closest(".box");
  if (!box || event.target !== box) return;
  const [left, top, right] = edgesOf(box);
  const side = right - left;
  const small = Math.max(1, Math.min(props.width, props.height) * 0.01);
  const step = event.shiftKey ? 5 * small : small;
  const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
  const sides = { r: "right", l: "left" };
  const grows = { "+": 2 * small, "=": 2 * small, "-": -2 * small };
  if (event.key in moves) place(box, left + moves[event.key][0], top + moves[event.key][1], side);
  else if (event.key in grows) place(box, left - grows[event.key] / 2, top - grows[event.key] / 2, side + grows[event.key]);
  else if (event.key.toLowerCase() in sides && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    setSide(box, sides[event.key.toLowerCase()]);
    return;
  } else if (event.key === "Delete" || event.key === "Backspace") remove(box);
  else return;
  event.preventDefault();
  if (!box.isConnected) return;
  commit();
  say(`Box at ${box.dataset.box.replaceAll(",", ", ")} pixels.`);
});

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".canvas") || event.button !== 0 || event.target.closest(".remove, .name")) return;
  event.preventDefault();
  const { width, height } = props;
  const frame = canvas.getBoundingClientRect();
  const pixel = ({ clientX, clientY }) => [
    ((clientX - frame.left) / frame.width) * width,
    ((clientY - frame.top) / frame.height) * height,
  ];
  const [x, y] = pixel(event);
  const held = event.target.closest(".box");
  const corner = event.target.dataset.corner;
  const [left, top, right, bottom] = held ? edgesOf(held) : [x, y, x, y];
  // Resizing and drawing hold one point still and take the longer way to the pointer as the square's side.
  const anchor = corner ? [corner.includes("w") ? right : left, corner.includes("n") ? bottom : top] : [x, y];
  const stretch = ([toX, toY]) => {
    const [fromX, fromY] = anchor;
    const side = Math.max(Math.abs(toX - fromX), Math.abs(toY - fromY));
    return [toX < fromX ? fromX - side : fromX, toY < fromY ? fromY - side : fromY, side];
  };
  let box = held;
  const moved = (now) => {
    const at = pixel(now);
    if (held && !corner) place(box, left + at[0] - x, top + at[1] - y, right - left);
    else if (box) place(box, ...stretch(at));
    else if (stretch(at)[2] >= SMALLEST * Math.min(width, height)) {
      box = draw(...stretch(at));
      if (!box) ended();
    }
  };
  const ended = () => {
    removeEventListener("pointermove", moved);
    removeEventListener("pointerup", ended);
    removeEventListener("pointercancel", ended);
    if (!box) return;
    commit();
    box.focus();
  };
  addEventListener("pointermove", moved);
  addEventListener("pointerup", ended);
  addEventListener("pointercancel", ended);
});
