// Plays all clips of the page by one clock, so that frame 5 of one is beside frame 5 of every other.
(() => {
  const player = document.getElementById("player");
  if (!player) return;
  const { frames, makeCanvas, paint, makeClock } = readSheets(player.dataset);
  const find = (id) => document.getElementById(id);
  const [play, slider, at, speed, chosen, other] = ["play", "frame", "at", "speed", "chosen", "other"].map(find);

  const amplify = (context, canvas) => {
    context.globalCompositeOperation = "lighter";
    context.drawImage(canvas, 0, 0);
    context.drawImage(canvas, 0, 0);
  };
  const content = (context, canvas, pair, frame) => {
    paint(context, pair[0], frame, "copy");
    paint(context, pair[1], frame, "difference");
    amplify(context, canvas);
  };
  const second = makeCanvas(), secondContext = second.getContext("2d");
  const motion = (context, canvas, pair, frame) => {
    const before = Math.max(frame - 1, 0);
    paint(context, pair[0], frame, "copy");
    paint(context, pair[0], before, "difference");
    paint(secondContext, pair[1], frame, "copy");
    paint(secondContext, pair[1], before, "difference");
    context.globalCompositeOperation = "difference";
    context.drawImage(second, 0, 0);
    amplify(context, canvas);
  };

  const examples = [...player.querySelectorAll(".example")].map((article) => {
    // By the row's place: a name could be that of something else.
    const sheets = new Map(), screens = [];
    for (const figure of article.querySelectorAll("figure[data-row]")) {
      const sheet = figure.querySelector("img"), canvas = makeCanvas(), context = canvas.getContext("2d");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", figure.dataset.model);
      sheets.set(figure.dataset.row, sheet);
      sheet.hidden = true;
      figure.prepend(canvas);
      screens.push((frame) => { if (!figure.hidden) paint(context, sheet, frame, "copy"); });
    }
    for (const figure of article.querySelectorAll("figure[data-difference]")) {
      const canvas = makeCanvas(), context = canvas.getContext("2d"), baseline = sheets.get(figure.dataset.baseline);
      const kind = figure.dataset.difference === "motion" ? motion : content;
      canvas.setAttribute("role", "img");
      figure.prepend(canvas);
      screens.push((frame) => {
        const sheet = sheets.get(other.value);
        figure.hidden = !sheet;
        figure.querySelector(".other").textContent = other.selectedOptions[0].textContent;
        canvas.setAttribute("aria-label", figure.textContent);
        if (sheet) kind(context, canvas, [baseline, sheet], frame);
      });
    }
    const ready = Promise.all([...sheets.values()].map((sheet) => sheet.decode().catch(() => {})));
    return { article, screens, ready };
  });

  let frame = 0;
  const show = (next) => {
    frame = ((next % frames) + frames) % frames;
    slider.value = String(frame);
    at.textContent = `${frame + 1} of ${frames}`;
    for (const { article, screens } of examples) if (!article.hidden) for (const screen of screens) screen(frame);
  };
  const clock = makeClock(() => Number(speed.value), (passed) => show(frame + passed));
  const setPlaying = (wanted) => {
    clock.run(wanted);
    play.textContent = wanted ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(wanted));
  };
  const step = (by) => {
    setPlaying(false);
    show(frame + by);
  };
  play.addEventListener("click", () => setPlaying(!clock.runs()));
  find("back").addEventListener("click", () => step(-1));
  find("forward").addEventListener("click", () => step(1));
  slider.addEventListener("input", () => { setPlaying(false); show(Number(slider.value)); });
  chosen.addEventListener("change", () => {
    for (const { article } of examples) {
      article.hidden = chosen.value !== "all" && article.dataset.index !== chosen.value;
    }
    show(frame);
  });
  other?.addEventListener("change", () => show(frame));
  for (const box of player.querySelectorAll("input.row")) box.addEventListener("change", () => {
    for (const figure of player.querySelectorAll(`figure[data-row="${box.value}"]`)) figure.hidden = !box.checked;
    show(frame);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    // Controls keep the keys that are theirs, and a part that scrolls sideways its arrows.
    if (event.target.closest("input, select, button, summary, a, .scrolled, pre")) return;
    const keys = { " ": () => setPlaying(!clock.runs()), ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-frame) };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  player.querySelector(".controls").hidden = false;
  // Each example is seen as soon as its own clips are there; they start together.
  for (const { screens, ready } of examples) ready.then(() => screens.forEach((screen) => screen(frame)));
  Promise.all(examples.map(({ ready }) => ready)).then(() => {
    show(0);
    player.dataset.ready = "true";
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
  });
})();
