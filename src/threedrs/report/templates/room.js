"use strict";
// What a question's card shows of its room: the frames that see its boxes, and the room to turn.
//
// The data of a room is a file beside the page, loaded when a question of the room is opened.
const threedrs = (() => {
  const NEAR = 0.05; // metres from a camera, before which nothing is drawn
  const LEAST_SEEN = 10; // percent of a box in view from which on a frame shows it
  const MOST_FRAMES = 2;
  const CAMERA = "#ffd60a";
  // Corners by their bits (bit of axis a: high on it), and pairs of corners that an edge joins.
  const EDGES = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((a) => [1, 2, 4]
    .filter((bit) => !(a & bit)).map((bit) => [a, a | bit]));
  const waiting = new Map();
  const rooms = new Map();
  let viewer = null;
  let current = null;

  const make = (tag, content = "", properties = {}) => {
    const element = document.createElement(tag);
    element.append(...[content].flat());
    Object.entries(properties).forEach(([name, value]) => {
      // Not every browser has ARIA's attributes as properties: Firefox before 119 has none.
      if (name in element) element[name] = value;
      else element.setAttribute(name, value);
    });
    return element;
  };
  const shape = (tag, properties, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(properties).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };

  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const unpack = async (text) => {
    const stream = new Blob([bytesOf(text.trim())]).stream();
    const plain = stream.pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(plain).text());
  };

  window.threedrsRoom = (scene, text) => {
    waiting.get(scene)?.(unpack(text).then(prepare));
    waiting.delete(scene); // whose resolver would keep a room that is let go
  };
  const load = (scene) => {
    if (!rooms.has(scene)) {
      rooms.set(scene, new Promise((resolve, reject) => {
        waiting.set(scene, resolve);
        const script = make("script", "", { src: `rooms/${encodeURIComponent(scene)}.js` });
        script.onerror = () => reject(new Error(`${script.getAttribute("src")} is not beside this page`));
        document.head.append(script);
      }));
      // A room takes some megabytes; the last few are enough to go back and forth.
      if (rooms.size > 6) rooms.delete(rooms.keys().next().value);
    }
    return rooms.get(scene);
  };

  const between = (from, to, share) => from.map((value, axis) => value + share * (to[axis] - value));
  const inkOf = (red, green, blue) => (0xff000000 | blue << 16 | green << 8 | red) >>> 0;
  const inkOfName = (colour) => inkOf(...[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));

  // The measured points in metres and as pixels, once: the room stays in memory for the next card.
  const prepare = (room) => {
    const steps = new Uint16Array(bytesOf(room.points).buffer);
    const colours = bytesOf(room.colours);
    room.places = Float32Array.from(steps, (step, at) => (
      room.low[at % 3] + step / 65535 * (room.high[at % 3] - room.low[at % 3])));
    room.inks = Uint32Array.from({ length: steps.length / 3 }, (_, at) => (
      inkOf(...colours.subarray(3 * at, 3 * at + 3))));
    return room;
  };

  const cornersOf = (box, more = 0) => [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [0, 1, 2].map(
    (axis) => box[axis] + ((bits >> axis & 1) - 0.5) * (box[axis + 3] + more)));
  const toCamera = (pose, point) => [0, 1, 2].map((column) => [0, 1, 2].reduce(
    (sum, row) => sum + (point[row] - pose[row][3]) * pose[row][column], 0));
  const toWorld = (pose, point) => pose.map((row) => (
    row[3] + row[0] * point[0] + row[1] * point[1] + row[2] * point[2]));

  // ---- frames

  // The frame that shows most of the first box in view, and one of a box that this one does not show.
  const chooseFrames = (room, boxes) => {
    const chosen = [];
    const unseen = [];
    for (const drawn of boxes) {
      const seen = room.seen[drawn.index];
      const most = Math.max(...seen);
      if (most < LEAST_SEEN) unseen.push(drawn.label);
      else if (chosen.length < MOST_FRAMES && !chosen.some((frame) => seen[frame] >= LEAST_SEEN)) {
        chosen.push(seen.indexOf(most));
      }
    }
    if (!chosen.length) chosen.push(Math.floor(room.frames.length / 2));
    return [chosen, [...new Set(unseen)]];
  };

  // The part of an edge in front of the camera, in pixels, if there is one.
  const edgeInFrame = ({ intrinsic: [fx, fy, cx, cy] }, first, second) => {
    if (first[2] < NEAR && second[2] < NEAR) return [];
    const cut = (near, far) => (
      near[2] >= NEAR ? near : between(near, far, (NEAR - near[2]) / (far[2] - near[2])));
    return [[cut(first, second), cut(second, first)].map(
      ([x, y, z]) => [fx * x / z + cx, fy * y / z + cy])];
  };

  const frameFigure = (room, scene, frame, boxes) => {
    const [width, height] = room.size;
    const overlay = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const labels = [];
    // The first box is drawn last, so on top; those below are wider, so that they still show.
    [...boxes].reverse().forEach((drawn, place) => {
      const corners = cornersOf(drawn.box).map((corner) => toCamera(room.cameras[frame], corner));
      const ends = EDGES.flatMap(([a, b]) => edgeInFrame(room, corners[a], corners[b]));
      if (!ends.length) return;
      const path = ends.map((edge) => `M${edge.map((at) => at.map((v) => v.toFixed(1)).join(" ")).join("L")}`).join("");
      const wide = 2 + 4 * Math.min(boxes.length - 1 - place, 2);
      overlay.append(...[["#101010", wide + 2], [drawn.colour, wide]].map(([stroke, pixels]) => (
        shape("path", { d: path, fill: "none", stroke, "stroke-width": pixels * width / 320 }))));
      const inside = ends.flat().filter(([u, v]) => u >= 0 && v >= 0 && u < width && v < height);
      if (inside.length) labels.push([inside.reduce((a, b) => (b[1] < a[1] ? b : a)), drawn]);
    });
    const size = width / 22;
    const taken = [];
    for (const [[u, v], { label, colour }] of labels.reverse()) {
      let y = Math.max(size * 1.2, v - size * 0.3);
      while (taken.some(([x, other]) => Math.abs(other - y) < size * 1.3 && Math.abs(x - u) < size * 8)) y += size * 1.35;
      taken.push([u, y]);
      overlay.append(shape("text", { x: Math.min(u, width * 0.72), y, fill: colour, stroke: "#101010",
        "stroke-width": size / 4, "paint-order": "stroke", "font-size": size, "font-weight": 700 }, label));
    }
    const names = [...new Set(boxes.map((drawn) => drawn.label))].join(", ");
    const image = make("img", "", { src: room.frames[frame],
      alt: `Frame ${room.frame_ids[frame]} of ${scene}${names ? ` with boxes: ${names}` : ""}` });
    return make("figure", [make("div", [image, overlay]),
      make("figcaption", `frame ${room.frame_ids[frame]}`)], { className: "frame" });
  };

  // ---- the room to turn
  //
  // Drawn point by point into an image, the nearest in front. Boxes and cameras are rows of points
  // too. 40,000 points take some milliseconds, so this needs no GPU and works in every browser.

  const GROUND = inkOfName("#1a1a1f");
  const SPACING = 0.015; // metres between the points of a line
  const MOST_DOTS = 2000; // points of a line, as a box or pose far out of the room has long ones
  const SIZES = [0.05, 0.025]; // metres, of a measured point and of one of a line
  const FOCAL = 0.8; // of the height of the image

  const linesOf = (room, boxes) => {
    const [[width, height], [fx, fy, cx, cy]] = [room.size, room.intrinsic];
    return [
      ...boxes.flatMap(({ box, colour }, rank) => {
        // Each is a little larger than the one before, so that boxes in the same place all show.
        const corners = cornersOf(box, 0.03 * rank);
        return EDGES.map(([a, b]) => [corners[a], corners[b], colour]);
      }),
      ...room.cameras.flatMap((pose) => {
        const eye = pose.map((row) => row[3]);
        const ends = [[0, 0], [width, 0], [width, height], [0, height]].map(
          ([u, v]) => between(eye, toWorld(pose, [(u - cx) / fx, (v - cy) / fy, 1]), 0.2));
        return ends.flatMap((end, number) => [[eye, end, CAMERA], [end, ends[(number + 1) % 4], CAMERA]]);
      }),
    ];
  };

  // All points of a room with its lines: places in metres, their pixels, and how many are measured.
  const cloudOf = (room, boxes) => {
    const dots = linesOf(room, boxes).flatMap(([from, to, colour]) => {
      const length = Math.hypot(...from.map((value, axis) => to[axis] - value));
      const count = Math.min(MOST_DOTS, Math.ceil(length / SPACING) + 1);
      return Array.from({ length: count }, (_, at) => [between(from, to, at / count), inkOfName(colour)]);
    });
    return { places: Float32Array.from([...room.places, ...dots.flatMap(([place]) => place)]),
      inks: Uint32Array.from([...room.inks, ...dots.map(([, ink]) => ink)]), measured: room.inks.length };
  };

  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  // The axes of a camera that looks back along the last one; z is up.
  const axesOf = ({ yaw, pitch }) => {
    const back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
    const right = [-Math.sin(yaw), Math.cos(yaw), 0];
    return [right, cross(back, right), back];
  };

  // The image of a canvas, its pixels, and the depth of what each shows.
  const sheetOf = (width, height) => {
    const image = new ImageData(width, height);
    return { image, pixels: new Uint32Array(image.data.buffer), depths: new Float32Array(width * height) };
  };

  // Returns the sheet that it drew on, for the next drawing: new ones are some 18 MB a frame.
  const drawCloud = (canvas, { places, inks, measured }, pose, cut, last) => {
    const sharp = Math.min(2, devicePixelRatio || 1);
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.floor(side * sharp));
    if (!width || !height) return last;
    const isSame = last?.image.width === width && last.image.height === height;
    const sheet = isSame ? last : sheetOf(width, height);
    const { pixels, depths } = sheet;
    pixels.fill(GROUND);
    depths.fill(Infinity);
    const [right, up, back] = axesOf(pose);
    const eye = between(pose.target, pose.target.map((value, axis) => value + back[axis]), pose.distance);
    const focal = FOCAL * height;
    for (let at = 0; at < inks.length; at += 1) {
      const isMeasured = at < measured;
      if (isMeasured && places[3 * at + 2] > cut) continue;
      const [x, y, z] = [places[3 * at] - eye[0], places[3 * at + 1] - eye[1], places[3 * at + 2] - eye[2]];
      const depth = -(x * back[0] + y * back[1] + z * back[2]);
      if (depth < NEAR) continue;
      // A line shows before the surface that it lies on.
      const shown = isMeasured ? depth : depth - SIZES[0];
      const side = Math.round(Math.min(12 * sharp, Math.max(2, focal * SIZES[isMeasured ? 0 : 1] / depth)));
      const left = Math.round(width / 2 + focal * (x * right[0] + y * right[1]) / depth - side / 2);
      const top = Math.round(height / 2 - focal * (x * up[0] + y * up[1] + z * up[2]) / depth - side / 2);
      for (let v = Math.max(0, top); v < Math.min(height, top + side); v += 1) {
        for (let u = Math.max(0, left); u < Math.min(width, left + side); u += 1) {
          if (shown < depths[v * width + u]) {
            depths[v * width + u] = shown;
            pixels[v * width + u] = inks[at];
          }
        }
      }
    }
    if (!isSame) Object.assign(canvas, { width, height });
    canvas.getContext("2d").putImageData(sheet.image, 0, 0);
    return sheet;
  };

  const startViewer = (canvas, room, boxes) => {
    const cloud = cloudOf(room, boxes);
    const home = () => ({ target: between(room.low, room.high, 0.5), yaw: -1.2, pitch: 0.9,
      distance: Math.hypot(...room.high.map((value, axis) => value - room.low[axis])) });
    const pose = home();
    let cut = room.high[2];
    let asked = 0;
    let sheet = null;
    const redraw = () => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        sheet = drawCloud(canvas, cloud, pose, cut, sheet);
      });
    };
    const turn = (x, y) => {
      pose.yaw -= x;
      pose.pitch = Math.min(1.57, Math.max(-1.57, pose.pitch + y));
      redraw();
    };
    const pan = (x, y) => {
      const [right, up] = axesOf(pose);
      pose.target = pose.target.map((value, axis) => value
        + pose.distance * (y * up[axis] - x * right[axis]));
      redraw();
    };
    const zoom = (factor) => {
      pose.distance = Math.min(200, Math.max(0.3, pose.distance * factor));
      redraw();
    };

    // One finger or button turns; two fingers, the right button or Shift move; two fingers zoom.
    const pointers = new Map();
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const [x, y] = [event.clientX - before[0], event.clientY - before[1]].map(
        (pixels) => pixels / canvas.clientHeight);
      const apart = () => {
        const [a, b] = [...pointers.values()];
        return Math.hypot(a[0] - b[0], a[1] - b[1]);
      };
      const was = pointers.size === 2 ? apart() : 0;
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 2) {
        zoom(was / Math.max(1, apart()));
        pan(x / 2, y / 2);
      } else if (event.shiftKey || event.buttons === 2) pan(x, y);
      else turn(4 * x, 4 * y);
    });
    ["pointerup", "pointercancel"].forEach((name) => canvas.addEventListener(
      name, (event) => pointers.delete(event.pointerId)));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(event.deltaY / 800));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? pan : turn;
      const amount = event.shiftKey ? 0.05 : 0.12;
      const actions = {
        ArrowLeft: () => step(-amount, 0), ArrowRight: () => step(amount, 0),
        ArrowUp: () => step(0, -amount), ArrowDown: () => step(0, amount),
        "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1.18),
        0: () => { Object.assign(pose, home()); redraw(); },
      };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
    new ResizeObserver(redraw).observe(canvas);
    redraw();
    return { cutAt: (height) => { cut = height; redraw(); }, pose };
  };

  const roomFigure = (room, scene, boxes) => {
    const canvas = make("canvas", "", { tabIndex: 0, role: "img",
      "aria-label": `${scene} to turn, with boxes and cameras` });
    const slider = make("input", "", { type: "range", min: room.low[2], max: room.high[2], step: 0.05,
      value: Math.min(room.high[2], room.low[2] + 2.2) });
    viewer = startViewer(canvas, room, boxes);
    const cut = () => viewer.cutAt(Number(slider.value));
    slider.addEventListener("input", cut);
    cut();
    return make("figure", [canvas, make("label", ["Cut the ceiling at this height", slider]),
      make("figcaption", "Drag to turn, wheel or pinch to zoom, right button, Shift or two fingers to move. Keys: arrows, Shift with arrows, + and -, 0 for the start. Cameras are yellow.")],
    { className: "turn" });
  };

  const leaveRoom = () => {
    current = null;
    viewer = null;
  };

  const showRoom = async (element, scene, boxes) => {
    leaveRoom();
    const mine = current = {};
    const say = (text) => make("p", text, { className: "note" });
    element.replaceChildren(say("Loading the room …"));
    try {
      const room = await load(scene);
      if (mine !== current) return; // another question was opened meanwhile
      const [chosen, unseen] = chooseFrames(room, boxes);
      const figures = (frames) => frames.map((frame) => frameFigure(room, scene, frame, boxes));
      const rest = make("details", make("summary", `All ${room.frames.length} frames`));
      rest.addEventListener("toggle", () => {
        rest.append(make("div", figures([...room.frames.keys()]), { className: "frames" }));
      }, { once: true });
      element.replaceChildren(
        make("div", [...figures(chosen), roomFigure(room, scene, boxes)], { className: "frames" }), rest);
      if (unseen.length) element.append(say(`In view of no frame: ${unseen.join(", ")}.`));
    } catch (error) {
      rooms.delete(scene);
      if (mine === current) element.replaceChildren(say(`Frames and room cannot be shown: ${error.message}.`));
    }
  };

  return { make, shape, unpack, showRoom, leaveRoom, viewerPose: () => viewer?.pose };
})();
