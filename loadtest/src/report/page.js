for (const plot of document.querySelectorAll(".plot")) {
  const values = JSON.parse(plot.dataset.values);
  const canvas = plot.querySelector(".canvas"), svg = canvas.querySelector("svg"), pointer = svg.querySelector(".pointer");
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  canvas.append(tip);
  const count = Math.max(...values.lines.map((line) => line.v.length));
  const leave = () => { tip.hidden = true; pointer.setAttribute("d", ""); };
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
    const at = Math.floor(((share - values.left) / (values.right - values.left)) * count);
    if (at < 0 || at >= count) return leave();
    const x = values.left + ((at + 0.5) / count) * (values.right - values.left);
    const view = svg.viewBox.baseVal;
    pointer.setAttribute("d", `M${x * view.width} 12V${view.height - 40}`);
    tip.replaceChildren();
    const seconds = at * values.step;
    const lines = [`${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} (${new Date((values.begin + seconds) * 1000).toISOString().slice(11, 19)} UTC)`];
    for (const line of values.lines) if (line.v[at] != null) lines.push(`${line.n}: ${line.v[at].toLocaleString("en")} ${values.unit}`);
    for (const text of lines) {
      const row = document.createElement("div");
      row.textContent = text;
      tip.append(row);
    }
    tip.hidden = false;
    const left = x * box.width;
    tip.style.left = left > box.width / 2 ? "auto" : `${left + 10}px`;
    tip.style.right = left > box.width / 2 ? `${box.width - left + 10}px` : "auto";
  });
}
