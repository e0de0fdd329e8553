"use strict";
// Sheets of frames, as an element's data-frames, -rate, -width, -height and -columns describe them.
const readSheets = (facts) => {
  const [frames, rate, width, height, columns] = ["frames", "rate", "width", "height", "columns"].map((name) => Number(facts[name]));
  const makeCanvas = () => {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas;
  };
  // A frame of a sheet onto a canvas, in any way of composing.
  const paint = (context, sheet, frame, how) => {
    context.globalCompositeOperation = how;
    const x = (frame % columns) * width, y = Math.floor(frame / columns) * height;
    context.drawImage(sheet, x, y, width, height, 0, 0, width, height);
  };
  // While it runs, `advance` is called with how many frames have passed at `speed()` times their rate.
  const makeClock = (speed, advance) => {
    let running = false, elapsed = 0, last = 0;
    const tick = (now) => {
      if (!running) return;
      elapsed += Math.max(0, now - last) * rate * speed() / 1000;
      last = now;
      if (elapsed >= 1) {
        advance(Math.floor(elapsed));
        elapsed %= 1;
      }
      requestAnimationFrame(tick);
    };
    const run = (wanted) => {
      const begins = wanted && !running;
      running = wanted;
      elapsed = 0;
      last = performance.now();
      if (begins) requestAnimationFrame(tick);
    };
    return { run, runs: () => running };
  };
  return { frames, makeCanvas, paint, makeClock };
};
