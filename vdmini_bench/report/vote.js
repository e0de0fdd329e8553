// Shows pairs of clips, to each voter in an order and on sides of their own; votes stay here until they are saved.
(() => {
  const page = document.getElementById("vote");
  const { frames, makeCanvas, paint, makeClock } = readSheets(page.dataset);
  const find = (id) => document.getElementById(id);
  const pairs = [...document.querySelectorAll("#pairs li")], keptAs = `vdmini-votes-${page.dataset.study}`;
  const screens = [...document.querySelectorAll("#pair figure")].map((figure) => {
    const canvas = makeCanvas();
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${figure.textContent} clip`);
    figure.prepend(canvas);
    return canvas.getContext("2d");
  });

  const start = () => {
    const order = pairs.map((_, index) => index);
    for (let last = order.length - 1; last > 0; last -= 1) {
      const other = Math.floor(Math.random() * (last + 1));
      [order[last], order[other]] = [order[other], order[last]];
    }
    const voter = `voter-${Math.random().toString(36).slice(2, 8)}`;
    return { voter, order, swapped: pairs.map(() => Math.random() < 0.5), choices: [] };
  };
  const keep = () => {
    try {
      localStorage.setItem(keptAs, JSON.stringify(state));
    } catch {
      find("unkept").hidden = false;
    }
  };
  const kept = () => {
    try {
      return JSON.parse(localStorage.getItem(keptAs));
    } catch {
      return null;
    }
  };
  let state = kept() ?? start();

  // The clips of a place in the voter's order, the left one first.
  const sides = (place) => {
    const index = state.order[place], { first, second } = pairs[index].dataset;
    return state.swapped[index] ? [second, first] : [first, second];
  };
  let sheets = [], frame = 0;
  const show = (next) => {
    frame = next % frames;
    sheets.forEach((sheet, side) => paint(screens[side], sheet, frame, "copy"));
  };
  const clock = makeClock(() => 1, (passed) => show(frame + passed));
  const setPlaying = (wanted) => {
    clock.run(wanted);
    find("play").textContent = wanted ? "Pause" : "Play";
    find("play").setAttribute("aria-pressed", String(wanted));
  };
  const showPair = async () => {
    const place = state.choices.length, done = place === pairs.length;
    keep();
    find("voter").value = state.voter;
    find("judging").hidden = done;
    find("done").hidden = !done;
    find("progress").value = place;
    find("at").textContent = done ? `${place} votes` : `pair ${place + 1} of ${pairs.length}`;
    sheets = [];
    if (done) return;
    find("asked").textContent = pairs[state.order[place]].textContent;
    const wanted = sides(place).map((name) => find(`clip-${name}`));
    await Promise.all(wanted.map((sheet) => sheet.decode().catch(() => {})));
    // Another vote or step back may have come before the pictures.
    if (state.choices.length !== place) return;
    sheets = wanted;
    show(0);
    page.dataset.shown = String(place + 1);
  };
  const choose = (choice) => {
    // Nobody judges what is not shown yet.
    if (!sheets.length) return;
    state.choices.push(choice);
    showPair();
  };
  const takeBack = () => {
    state.choices.pop();
    showPair();
  };
  const save = () => {
    const votes = state.choices.map((choice, place) => ({ left: sides(place)[0], right: sides(place)[1], choice }));
    const file = { format: "vdmini-votes", version: 1, study: page.dataset.study, voter: state.voter.trim() || "nobody", votes };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 1)}\n`], { type: "application/json" }));
    link.download = `votes-${file.voter.replace(/[^\p{L}\p{N}_-]/gu, "-")}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", (event) => {
    // After a click Space is for playing again, and not for one more vote.
    if (event.detail) button.blur();
    choose(button.dataset.choice);
  });
  find("play").addEventListener("click", () => setPlaying(!clock.runs()));
  find("back").addEventListener("click", takeBack);
  find("save").addEventListener("click", save);
  find("anew").addEventListener("click", () => {
    if (!confirm("Forget the votes in this browser? Save them first.")) return;
    state = start();
    showPair();
  });
  find("voter").addEventListener("input", (event) => {
    state.voter = event.target.value;
    keep();
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target.closest("input")) return;
    if (event.key === " " && event.target.closest("button")) return;
    const keys = {
      ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), ArrowDown: () => choose("tie"),
      Backspace: takeBack, " ": () => setPlaying(!clock.runs()),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  find("tools").hidden = false;
  showPair();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
})();
