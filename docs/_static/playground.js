// The playground: a ResNet-20 in the browser, with a gate for the layers and one for the shortcut of each block. See docs/network.py.
(() => {
  "use strict";
  const CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
  const BLOCKS = 9, SIDE = 32;
  const root = document.getElementById("playground");
  const find = (selector) => root.querySelector(selector);
  const base = new URL(root.dataset.static, document.baseURI).href;
  const canvas = find("canvas"), brush = canvas.getContext("2d", { willReadFrequently: true });
  const on = () => Array(BLOCKS).fill(1);
  const gates = { layers: on(), shortcuts: on() };
  let session = null, samples = null, busy = Promise.resolve();

  const make = (tag, parent, options = {}) => parent.appendChild(Object.assign(document.createElement(tag), options));
  const nameOf = (number) => `${Math.floor(number / 3) + 1}.${(number % 3) + 1}`;

  // Pixels of the canvas as (1, 3, 32, 32), normalised as in training: -1 to 1.
  function picture() {
    const { data } = brush.getImageData(0, 0, SIDE, SIDE);
    const plane = SIDE * SIDE, values = new Float32Array(3 * plane);
    for (let pixel = 0; pixel < plane; pixel++) {
      for (let channel = 0; channel < 3; channel++) values[channel * plane + pixel] = data[4 * pixel + channel] / 127.5 - 1;
    }
    return values;
  }

  async function scores() {
    const tensor = (values, shape) => new ort.Tensor("float32", values, shape);
    const result = await session.run({
      image: tensor(picture(), [1, 3, SIDE, SIDE]),
      layers: tensor(Float32Array.from(gates.layers), [BLOCKS]),
      shortcuts: tensor(Float32Array.from(gates.shortcuts), [BLOCKS]),
    });
    return [...result.scores.data];
  }

  function softmax(values) {
    const powers = values.map((value) => Math.exp(value - Math.max(...values)));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  // One run after another: a session does not take two at once.
  function update() {
    busy = busy.then(async () => {
      const shares = softmax(await scores());
      const best = shares.indexOf(Math.max(...shares));
      find("[data-answer]").textContent = `${CLASSES[best]}, ${Math.round(100 * shares[best])} % sure`;
      [...find("[data-scores]").children].forEach((row, number) => {
        row.querySelector("meter").value = shares[number];
        row.querySelector("output").textContent = `${(100 * shares[number]).toFixed(1)} %`;
        row.classList.toggle("best", number === best);
      });
      root.querySelectorAll("tbody input").forEach((box) => { box.checked = gates[box.dataset.part][box.dataset.block] === 1; });
    });
    return busy;
  }

  function draw(image, x, y, width, height) {
    brush.imageSmoothingEnabled = width !== SIDE;
    brush.imageSmoothingQuality = "high";
    brush.fillStyle = "white"; // under what is transparent
    brush.fillRect(0, 0, SIDE, SIDE);
    brush.drawImage(image, x, y, width, height, 0, 0, SIDE, SIDE);
    return update();
  }

  const sample = (number) => draw(samples, SIDE * number, 0, SIDE, SIDE);

  function set(layers, shortcuts) {
    gates.layers = layers;
    gates.shortcuts = shortcuts;
    return update();
  }

  function fill() {
    CLASSES.forEach((name, number) => {
      const button = make("button", find("[data-samples]"), { type: "button", title: name, onclick: () => sample(number) });
      button.setAttribute("aria-label", `Sample: ${name}`);
      button.style.backgroundImage = `url("${samples.src}")`;
      button.style.backgroundPosition = `${-48 * number}px 0`;
      const row = make("label", find("[data-scores]"));
      make("span", row, { textContent: name });
      make("meter", row, { min: 0, max: 1 });
      make("output", row);
    });
    for (let number = 0; number < BLOCKS; number++) {
      const row = make("tr", find("tbody"));
      make("th", row, { scope: "row", textContent: nameOf(number) });
      for (const part of ["layers", "shortcuts"]) {
        const box = make("input", make("td", row), { type: "checkbox", checked: true });
        box.setAttribute("aria-label", `${part === "layers" ? "Layers" : "Shortcut"} of block ${nameOf(number)}`);
        Object.assign(box.dataset, { part, block: number });
        box.onchange = () => { gates[part][number] = box.checked ? 1 : 0; update(); };
      }
    }
    const without = (number) => on().map((gate, other) => (other === number ? 0 : gate));
    for (const [text, layers, shortcuts] of [
      ["Everything on", on(), on()],
      ["Delete block 2.2", without(4), on()],
      ["Delete block 2.1, the first of its stage", without(3), on()],
      ["Remove all shortcuts", on(), Array(BLOCKS).fill(0)],
    ]) make("button", find("[data-presets]"), { type: "button", className: "sd-btn sd-btn-outline-primary", textContent: text, onclick: () => set([...layers], [...shortcuts]) });
    find("[data-file]").onchange = async ({ target }) => {
      try {
        const image = await createImageBitmap(target.files[0]);
        const side = Math.min(image.width, image.height);
        await draw(image, (image.width - side) / 2, (image.height - side) / 2, side, side);
        find("[data-state]").textContent = "";
      } catch {
        find("[data-state]").textContent = "This file is not a picture that the browser can read.";
      }
    };
  }

  async function load() {
    const button = find("[data-load]"), state = find("[data-state]");
    button.disabled = true;
    state.textContent = "Loading …";
    try {
      ort.env.wasm.numThreads = 1; // more would need headers that a simple host does not send
      ort.env.wasm.wasmPaths = `${base}ort/`;
      samples = Object.assign(new Image(), { src: `${base}samples.png` });
      await samples.decode();
      session = await ort.InferenceSession.create(`${base}resnet20.onnx`, { executionProviders: ["wasm"] });
    } catch (error) {
      button.disabled = false;
      state.textContent = `The network could not be loaded: ${error.message}`;
      return;
    }
    fill();
    await sample(3);
    button.parentElement.querySelector("[data-load]").hidden = true;
    state.textContent = "";
    find(".playground-parts").hidden = false;
  }

  find("[data-load]").onclick = load;
  window.playground = { load, sample, set, scores }; // for the test that compares with PyTorch
})();
