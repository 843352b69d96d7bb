// The heat map: a layer for each grade, its opacity, and both pictures large. Nothing here asks the server.
const slider = element.querySelector('input[type="range"]');

const showLayer = (grade) => {
  for (const layer of element.querySelectorAll(".layer")) layer.hidden = layer.dataset.grade !== grade;
};
const showOpacity = () => {
  element.style.setProperty("--koa-opacity", slider.value / 100);
  element.querySelector("output").value = slider.value;
};
// A new result shows the evidence for its own grade; the opacity stays as the visitor left it.
const showResult = () => {
  const grade = String(props.value.grade);
  for (const radio of element.querySelectorAll('input[type="radio"]')) radio.checked = radio.value === grade;
  showLayer(grade);
  showOpacity();
};
watch("value", showResult);
showResult();

element.addEventListener("input", ({ target }) => {
  if (target === slider) showOpacity();
  if (target.type === "radio") showLayer(target.value);
});

element.addEventListener("click", ({ target }) => {
  const button = target.closest(".enlarge");
  if (button) enlarge(button);
});

function enlarge(button) {
  const figure = button.closest("figure");
  const dialog = document.createElement("dialog");
  dialog.className = "zoom";
  dialog.setAttribute("aria-label", figure.querySelector("figcaption").firstChild.textContent.trim());
  dialog.innerHTML =
    '<div class="bar"><button type="button" data-zoom="0.8" aria-label="Smaller">−</button>' +
    '<button type="button" data-zoom="1.25" aria-label="Larger">+</button>' +
    '<button type="button" data-close>Close</button></div><div class="scroll" tabindex="0"></div>';
  const scroll = dialog.querySelector(".scroll");
  const shown = scroll.appendChild(figure.querySelector(".stack").cloneNode(true));
  const picture = figure.querySelector("img");
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
}
