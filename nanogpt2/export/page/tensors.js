// Weights as they lie in the files, and products with them. Chapter: where_the_time_goes.
//
// Each part of the engine is a function that gives its names: the page runs it, and the worker is
// made of the same functions' source text, so that both open from a file, where nothing is fetched.
globalThis.nanogpt2 ??= {};

nanogpt2.tensors = () => {
  // A matrix (rows, cols): floats, or whole numbers of 8 bits with one scale a row.
  class Matrix {
    constructor(rows, cols, data, scale = null) {
      Object.assign(this, { rows, cols, data, scale });
    }

    // One row as floats: what an embedding table is asked for.
    row(r, out = new Float32Array(this.cols)) {
      const at = r * this.cols, by = this.scale ? this.scale[r] : 1;
      for (let c = 0; c < this.cols; c++) out[c] = by * this.data[at + c];
      return out;
    }

    floats() {
      const all = new Float32Array(this.rows * this.cols);
      for (let r = 0; r < this.rows; r++) this.row(r, all.subarray(r * this.cols, (r + 1) * this.cols));
      return all;
    }

    // x (T, cols) -> y (T, rows) = x W^T + bias. Four positions share each weight that is read; a
    // single one, as when text is written token by token, is shared by four sums instead.
    apply(x, T, bias = null) {
      const { rows, cols, data, scale } = this;
      const y = new Float32Array(T * rows);
      for (let r = 0; r < rows; r++) {
        const w = r * cols, by = scale ? scale[r] : 1, plus = bias ? bias[r] : 0;
        let t = 0;
        for (; t + 4 <= T; t += 4) {
          const i = t * cols, j = i + cols, k = j + cols, l = k + cols;
          let a = 0, b = 0, e = 0, f = 0;
          for (let c = 0; c < cols; c++) {
            const weight = data[w + c];
            a += weight * x[i + c];
            b += weight * x[j + c];
            e += weight * x[k + c];
            f += weight * x[l + c];
          }
          y[t * rows + r] = by * a + plus;
          y[(t + 1) * rows + r] = by * b + plus;
          y[(t + 2) * rows + r] = by * e + plus;
          y[(t + 3) * rows + r] = by * f + plus;
        }
        for (; t < T; t++) {
          const i = t * cols, even = cols & ~3;
          let a = 0, b = 0, e = 0, f = 0, c = 0;
          for (; c < even; c += 4) {
            a += data[w + c] * x[i + c];
            b += data[w + c + 1] * x[i + c + 1];
            e += data[w + c + 2] * x[i + c + 2];
            f += data[w + c + 3] * x[i + c + 3];
          }
          for (; c < cols; c++) a += data[w + c] * x[i + c];
          y[t * rows + r] = by * (a + b + e + f) + plus;
        }
      }
      return y;
    }
  }

  // The tensors of one set of weights, by name. `bytes` begins with all floats and ends with all
  // whole numbers; `index` says of each tensor [name, shape, where its floats are, where its
  // numbers are (-1: it has floats alone)]. nanogpt2/export/weights.py writes it.
  function unpack(bytes, index, floats) {
    const f32 = new Float32Array(bytes.buffer, 0, floats);
    const i8 = new Int8Array(bytes.buffer, 4 * floats);
    const found = {};
    for (const [name, shape, first, whole] of index) {
      const [rows, cols] = shape.length === 2 ? shape : [1, shape[0]];
      const size = rows * cols;
      if (shape.length === 1) found[name] = f32.subarray(first, first + size);
      else if (whole < 0) found[name] = new Matrix(rows, cols, f32.subarray(first, first + size));
      else found[name] = new Matrix(rows, cols, i8.subarray(whole, whole + size), f32.subarray(first, first + rows));
    }
    return found;
  }

  // Files hold text: base64 of gzip. Gives all their bytes, one after another.
  async function inflate(texts) {
    const parts = [];
    for (const text of texts) {
      const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      parts.push(new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }

  // Singular values, largest first: one-sided Jacobi (Hestenes, 1958), which turns pairs of rows
  // until all are at right angles; their lengths are the values. Chapter: muon.
  function singularValues(matrix) {
    const tall = matrix.rows > matrix.cols, all = matrix.floats();
    const [n, m] = tall ? [matrix.cols, matrix.rows] : [matrix.rows, matrix.cols];
    const rows = Array.from({ length: n }, (_, i) =>
      Float64Array.from({ length: m }, (_, j) => (tall ? all[j * n + i] : all[i * m + j])));
    for (let sweep = 0, turned = true; turned && sweep < 30; sweep++) {
      turned = false;
      for (let p = 0; p < n; p++)
        for (let q = p + 1; q < n; q++) {
          const a = rows[p], b = rows[q];
          let aa = 0, bb = 0, ab = 0;
          for (let i = 0; i < m; i++) {
            aa += a[i] * a[i];
            bb += b[i] * b[i];
            ab += a[i] * b[i];
          }
          if (Math.abs(ab) <= 1e-9 * Math.sqrt(aa * bb)) continue;
          turned = true;
          const zeta = (bb - aa) / (2 * ab);
          const tan = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
          const cos = 1 / Math.sqrt(1 + tan * tan), sin = cos * tan;
          for (let i = 0; i < m; i++) {
            const was = a[i];
            a[i] = cos * was - sin * b[i];
            b[i] = sin * was + cos * b[i];
          }
        }
    }
    return Float32Array.from(rows, (row) => Math.hypot(...row)).sort().reverse();
  }

  return { Matrix, unpack, inflate, singularValues };
};
