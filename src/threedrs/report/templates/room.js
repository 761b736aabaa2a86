"use strict";
// What a question's card shows of its room: the frames that see its boxes, and the room to turn.
//
// The data of a room is a file beside the page, loaded when a question of the room is opened.
const threedrs = (() => {
  const NEAR = 0.05; // metres before which an edge is cut
  const LEAST_SEEN = 10; // percent of a box in view from which on a frame shows it
  const MOST_FRAMES = 2;
  const CAMERA = "#ffd60a";
  const SVG = "http://www.w3.org/2000/svg";
  // Corners by their bits (bit of axis a: high on it), and pairs of corners that an edge joins.
  const EDGES = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((a) => [1, 2, 4]
    .filter((bit) => !(a & bit)).map((bit) => [a, a | bit]));
  const waiting = new Map();
  const rooms = new Map();
  let viewer = null;
  let current = null;

  const bytesOf = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const unpack = async (text) => {
    const stream = new Blob([bytesOf(text.trim())]).stream();
    const plain = stream.pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(plain).text());
  };

  window.threedrsRoom = (scene, text) => {
    waiting.get(scene)?.(unpack(text));
    waiting.delete(scene); // whose resolver would keep a room that is let go
  };
  const load = (scene) => {
    if (!rooms.has(scene)) {
      rooms.set(scene, new Promise((resolve, reject) => {
        waiting.set(scene, resolve);
        const script = document.createElement("script");
        script.src = `rooms/${encodeURIComponent(scene)}.js`;
        script.onerror = () => reject(new Error(`${script.getAttribute("src")} is not beside this page`));
        document.head.append(script);
      }));
      // A room takes some megabytes; the last few are enough to go back and forth.
      if (rooms.size > 6) rooms.delete(rooms.keys().next().value);
    }
    return rooms.get(scene);
  };

  const cornersOf = (box) => [0, 1, 2, 3, 4, 5, 6, 7].map((bits) => [0, 1, 2].map(
    (axis) => box[axis] + ((bits >> axis & 1) - 0.5) * box[axis + 3]));

  // ---- frames

  // As `frames_that_show` of threedrs.visualization.box_overlay chooses.
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

  const toCamera = (pose, point) => [0, 1, 2].map((column) => [0, 1, 2].reduce(
    (sum, row) => sum + (point[row] - pose[row][3]) * pose[row][column], 0));

  const clip = (first, second) => {
    if (first[2] < NEAR && second[2] < NEAR) return null;
    const cut = (near, far) => {
      if (near[2] >= NEAR) return near;
      const share = (NEAR - near[2]) / (far[2] - near[2]);
      return near.map((value, axis) => value + share * (far[axis] - value));
    };
    return [cut(first, second), cut(second, first)];
  };

  const shape = (name, properties) => {
    const element = document.createElementNS(SVG, name);
    Object.entries(properties).forEach(([key, value]) => element.setAttribute(key, value));
    return element;
  };

  const frameFigure = (room, scene, frame, boxes) => {
    const [width, height] = room.size;
    const [fx, fy, cx, cy] = room.intrinsic;
    const overlay = shape("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const labels = [];
    // The first box is drawn last, so on top; those below are wider, so that they still show.
    [...boxes].reverse().forEach((drawn, place) => {
      const corners = cornersOf(drawn.box).map((corner) => toCamera(room.cameras[frame], corner));
      const ends = EDGES.map(([a, b]) => clip(corners[a], corners[b])).filter(Boolean).map((edge) => (
        edge.map(([x, y, z]) => [fx * x / z + cx, fy * y / z + cy])));
      if (!ends.length) return;
      const path = ends.map((edge) => `M${edge.map((at) => at.map((v) => v.toFixed(1)).join(" ")).join("L")}`).join("");
      const wide = (width / 320) * (2 + Math.min(boxes.length - 1 - place, 2));
      overlay.append(
        shape("path", { d: path, fill: "none", stroke: "#101010", "stroke-width": wide * 2 }),
        shape("path", { d: path, fill: "none", stroke: drawn.colour, "stroke-width": wide }));
      const inside = ends.flat().filter(([u, v]) => u >= 0 && v >= 0 && u < width && v < height);
      if (inside.length) labels.push([inside.reduce((a, b) => (b[1] < a[1] ? b : a)), drawn]);
    });
    const size = width / 22;
    const taken = [];
    for (const [[u, v], drawn] of labels.reverse()) {
      let y = Math.max(size * 1.2, v - size * 0.3);
      while (taken.some(([x, other]) => Math.abs(other - y) < size * 1.3 && Math.abs(x - u) < size * 8)) y += size * 1.35;
      taken.push([u, y]);
      const text = shape("text", { x: Math.min(u, width * 0.72), y, fill: drawn.colour, stroke: "#101010",
        "stroke-width": size / 4, "paint-order": "stroke", "font-size": size, "font-weight": 700 });
      text.textContent = drawn.label;
      overlay.append(text);
    }
    const image = new Image();
    image.src = `data:image/jpeg;base64,${room.frames[frame]}`;
    const names = [...new Set(boxes.map((drawn) => drawn.label))].join(", ");
    image.alt = `Frame ${room.frame_ids[frame]} of ${scene}${names ? ` with boxes: ${names}` : ""}`;
    const figure = document.createElement("figure");
    figure.className = "frame";
    const holder = document.createElement("div");
    holder.append(image, overlay);
    const caption = document.createElement("figcaption");
    caption.textContent = `frame ${room.frame_ids[frame]}`;
    figure.append(holder, caption);
    return figure;
  };

  // ---- the room from above, where WebGL is missing

  const drawFromAbove = (canvas, room, boxes, cut) => {
    const side = canvas.width = canvas.height = 640;
    const drawing = canvas.getContext("2d");
    drawing.fillStyle = "#d6d8dc";
    drawing.fillRect(0, 0, side, side);
    const scale = (side - 20) / Math.max(room.high[0] - room.low[0], room.high[1] - room.low[1]);
    const at = (x, y) => [10 + (x - room.low[0]) * scale, side - 10 - (y - room.low[1]) * scale];
    const points = [];
    for (let index = 0; index < room.points.length; index += 3) {
      const [x, y, z] = [0, 1, 2].map((axis) => room.low[axis]
        + room.points[index + axis] / 65535 * (room.high[axis] - room.low[axis]));
      if (z <= cut) points.push([z, x, y, index]);
    }
    // The highest point of a place is the one that shows.
    points.sort((a, b) => a[0] - b[0]);
    for (const [, x, y, index] of points) {
      drawing.fillStyle = `rgb(${room.colours.subarray(index, index + 3).join()})`;
      drawing.fillRect(...at(x, y), 4, 4);
    }
    drawing.fillStyle = CAMERA;
    room.cameras.forEach((pose) => {
      const [x, y] = at(pose[0][3], pose[1][3]);
      drawing.fillRect(x - 3, y - 3, 6, 6);
    });
    [...boxes].reverse().forEach(({ box, colour }) => {
      const [left, top] = at(box[0] - box[3] / 2, box[1] + box[4] / 2);
      for (const [stroke, width] of [["#101010", 6], [colour, 3]]) {
        Object.assign(drawing, { strokeStyle: stroke, lineWidth: width });
        drawing.strokeRect(left, top, box[3] * scale, box[4] * scale);
      }
    });
  };

  // ---- the room to turn

  const POINTS = [`attribute vec3 place; attribute vec3 colour; uniform mat4 view; uniform vec3 low;
    uniform vec3 size; uniform float cut; uniform float dot; varying vec3 shown;
    void main() {
      vec3 world = low + place * size;
      gl_Position = world.z > cut ? vec4(2.0, 2.0, 2.0, 1.0) : view * vec4(world, 1.0);
      gl_PointSize = clamp(dot / gl_Position.w, 1.5, 12.0);
      shown = colour;
    }`, "precision mediump float; varying vec3 shown; void main() { gl_FragColor = vec4(shown, 1.0); }"];
  const LINES = [`attribute vec3 place; uniform mat4 view; uniform vec2 shift;
    void main() { gl_Position = view * vec4(place, 1.0); gl_Position.xy += shift * gl_Position.w; }`,
  "precision mediump float; uniform vec3 ink; void main() { gl_FragColor = vec4(ink, 1.0); }"];
  // Lines of WebGL are one pixel wide: each is drawn again beside itself.
  const SHIFTS = [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]];

  const inkOf = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);

  const programOf = (gl, [vertex, fragment]) => {
    const program = gl.createProgram();
    [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]].forEach(([kind, source]) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    });
    gl.linkProgram(program);
    return program;
  };

  const bufferOf = (gl, content) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, content, gl.STATIC_DRAW);
    return buffer;
  };

  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const dotOf = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

  // The camera looks at `target` from `distance`, z is up; the matrix is column by column.
  const axesOf = ({ yaw, pitch }) => {
    const back = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), Math.sin(pitch)];
    const right = [-Math.sin(yaw), Math.cos(yaw), 0];
    return [right, cross(back, right), back];
  };
  const matrixOf = (pose, aspect) => {
    const axes = axesOf(pose);
    const eye = pose.target.map((value, axis) => value + pose.distance * axes[2][axis]);
    const [near, far, focal] = [pose.distance / 50, pose.distance * 20, 1.6];
    const rows = [axes[0].map((v) => v * focal / aspect), axes[1].map((v) => v * focal),
      axes[2].map((v) => v * (far + near) / (near - far)), axes[2].map((v) => -v)];
    const ends = rows.map((row) => -dotOf(row, eye));
    ends[2] += 2 * far * near / (near - far);
    return new Float32Array([0, 1, 2].flatMap((axis) => rows.map((row) => row[axis])).concat(ends));
  };

  const cameraLines = (room) => room.cameras.flatMap((pose) => {
    const [width, height] = room.size;
    const [fx, fy, cx, cy] = room.intrinsic;
    const world = (ray) => [0, 1, 2].map((row) => pose[row][3]
      + 0.2 * [0, 1, 2].reduce((sum, column) => sum + pose[row][column] * ray[column], 0));
    const eye = pose.map((row) => row[3]);
    const ends = [[0, 0], [width, 0], [width, height], [0, height]].map(
      ([u, v]) => world([(u - cx) / fx, (v - cy) / fy, 1]));
    return ends.flatMap((end, number) => [...eye, ...end, ...end, ...ends[(number + 1) % 4]]);
  });

  const startViewer = (canvas, room, boxes) => {
    const gl = canvas.getContext("webgl", { antialias: true });
    if (!gl) return null;
    const size = room.high.map((value, axis) => value - room.low[axis]);
    const home = () => ({ target: room.low.map((value, axis) => value + size[axis] / 2), yaw: -1.2,
      pitch: 0.9, distance: Math.hypot(...size) });
    const pose = home();
    const programs = [programOf(gl, POINTS), programOf(gl, LINES)];
    const [places, colours] = [bufferOf(gl, room.points), bufferOf(gl, room.colours)];
    const lines = [[CAMERA, cameraLines(room)], ...[...boxes].reverse().map(({ box, colour }) => {
      const corners = cornersOf(box);
      return [colour, EDGES.flatMap(([a, b]) => [...corners[a], ...corners[b]])];
    })].map(([colour, ends]) => [inkOf(colour), bufferOf(gl, new Float32Array(ends)), ends.length / 3]);
    let cut = room.high[2];
    let asked = 0;

    const attach = (program, name, buffer, kind, normalised) => {
      const place = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, kind, normalised, 0, 0);
    };
    const draw = () => {
      asked = 0;
      const sharp = Math.min(2, devicePixelRatio || 1);
      canvas.width = canvas.clientWidth * sharp;
      canvas.height = canvas.clientHeight * sharp;
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.enable(gl.DEPTH_TEST);
      gl.clearColor(0.1, 0.1, 0.12, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const view = matrixOf(pose, canvas.width / canvas.height);
      const set = (program, name, kind, ...values) => (
        gl[`uniform${kind}`](gl.getUniformLocation(program, name), ...values));
      gl.useProgram(programs[0]);
      set(programs[0], "view", "Matrix4fv", false, view);
      set(programs[0], "low", "3fv", room.low);
      set(programs[0], "size", "3fv", size);
      set(programs[0], "cut", "1f", cut);
      set(programs[0], "dot", "1f", canvas.height * 0.04);
      attach(programs[0], "place", places, gl.UNSIGNED_SHORT, true);
      attach(programs[0], "colour", colours, gl.UNSIGNED_BYTE, true);
      gl.drawArrays(gl.POINTS, 0, room.points.length / 3);
      gl.useProgram(programs[1]);
      set(programs[1], "view", "Matrix4fv", false, view);
      for (const [ink, buffer, count] of lines) {
        set(programs[1], "ink", "3fv", ink);
        attach(programs[1], "place", buffer, gl.FLOAT, false);
        for (const [x, y] of SHIFTS) {
          set(programs[1], "shift", "2f", x * 2 / canvas.width, y * 2 / canvas.height);
          gl.drawArrays(gl.LINES, 0, count);
        }
      }
    };
    const redraw = () => { asked ||= requestAnimationFrame(draw); };
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
    return { cutAt: (height) => { cut = height; redraw(); },
      end: () => gl.getExtension("WEBGL_lose_context")?.loseContext(), pose };
  };

  const roomFigure = (room, scene, boxes) => {
    const figure = document.createElement("figure");
    figure.className = "turn";
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const slider = Object.assign(document.createElement("input"), { type: "range",
      min: room.low[2], max: room.high[2], step: 0.05, value: Math.min(room.high[2], room.low[2] + 2.2) });
    const label = document.createElement("label");
    label.append("Cut the ceiling at this height", slider);
    const caption = document.createElement("figcaption");
    figure.append(canvas, label, caption);
    const start = () => {
      viewer = startViewer(canvas, room, boxes);
      const cutAt = viewer?.cutAt ?? ((height) => drawFromAbove(canvas, room, boxes, height));
      canvas.setAttribute("aria-label", viewer ? `${scene} to turn, with boxes and cameras`
        : `${scene} from above, with boxes and cameras`);
      caption.textContent = viewer
        ? "Drag to turn, wheel or pinch to zoom, right button, Shift or two fingers to move. Keys: arrows, Shift with arrows, + and -, 0 for the start. Cameras are yellow."
        : "From above, as this browser has no WebGL. Cameras are yellow.";
      slider.addEventListener("input", () => cutAt(Number(slider.value)));
      cutAt(Number(slider.value));
    };
    return [figure, start];
  };

  const prepare = (room) => {
    // Turned into arrays once; the room stays in memory for the next card.
    if (typeof room.points === "string") {
      room.points = new Uint16Array(bytesOf(room.points).buffer);
      room.colours = bytesOf(room.colours);
    }
    return room;
  };

  const leaveRoom = () => {
    current = null;
    viewer?.end();
    viewer = null;
  };

  const showRoom = async (element, scene, boxes) => {
    leaveRoom();
    const mine = current = {};
    const say = (text) => {
      const line = document.createElement("p");
      line.className = "note";
      line.textContent = text;
      return line;
    };
    element.replaceChildren(say("Loading the room …"));
    try {
      const room = prepare(await load(scene));
      if (mine !== current) return; // another question was opened meanwhile
      const [chosen, unseen] = chooseFrames(room, boxes);
      const frames = document.createElement("div");
      frames.className = "frames";
      const [figure, start] = roomFigure(room, scene, boxes);
      frames.append(...chosen.map((frame) => frameFigure(room, scene, frame, boxes)), figure);
      const rest = document.createElement("details");
      const summary = document.createElement("summary");
      summary.textContent = `All ${room.frames.length} frames`;
      rest.append(summary);
      rest.addEventListener("toggle", () => {
        if (rest.childElementCount > 1) return;
        const sheet = document.createElement("div");
        sheet.className = "frames";
        sheet.append(...room.frames.map((_, frame) => frameFigure(room, scene, frame, boxes)));
        rest.append(sheet);
      });
      element.replaceChildren(frames, rest);
      if (unseen.length) element.append(say(`In view of no frame: ${unseen.join(", ")}.`));
      start();
    } catch (error) {
      rooms.delete(scene);
      if (mine === current) element.replaceChildren(say(`Frames and room cannot be shown: ${error.message}.`));
    }
  };

  return { unpack, showRoom, leaveRoom, viewerPose: () => viewer?.pose };
})();
