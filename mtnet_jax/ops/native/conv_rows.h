// Which rows of arrays a 3-D convolution multiplies with which of its kernel.
//
// Arrays are n t h w c in memory. Padding is k / 2 zeros on both sides of each
// axis; rows in the padding are left out.
#ifndef MTNET_JAX_NATIVE_CONV_ROWS_H_
#define MTNET_JAX_NATIVE_CONV_ROWS_H_

#include <cstdint>


namespace mtnet {

// Kernels have at most so many rows: the caller sees to it.
constexpr int kMaxRows = 25;

struct Geometry {
  int64_t n, t, h, w, c;       // x
  int64_t u, v, z, f;          // y: frames, rows, columns, features
  int64_t kt, kh, kw;
  int64_t st, sh, sw;
};

template <typename A, typename B, typename C, typename S>
Geometry MakeGeometry(const A& x, const B& y, const C& kernel, const S& s) {
  return {x[0], x[1],      x[2],      x[3],      x[4],      y[1], y[2], y[3],
          y[4], kernel[0], kernel[1], kernel[2], s[0],      s[1], s[2]};
}

// A row of an array, and the row of the kernel that it is multiplied by.
struct Row {
  const float* x;
  const float* kernel;
};

// Rows of x that row (u, v) of y is a sum over; a kernel's row has so many
// floats.
inline int RowsBelow(const Geometry& g, const float* x, const float* kernel,
                     int64_t kernel_row, int64_t n, int64_t u, int64_t v,
                     Row* rows) {
  int count = 0;
  for (int64_t i = 0; i < g.kt; ++i) {
    for (int64_t j = 0; j < g.kh; ++j) {
      const int64_t t = u * g.st + i - g.kt / 2, h = v * g.sh + j - g.kh / 2;
      if (t < 0 || t >= g.t || h < 0 || h >= g.h) continue;
      rows[count++] = {x + ((n * g.t + t) * g.h + h) * g.w * g.c,
                       kernel + (i * g.kh + j) * kernel_row};
    }
  }
  return count;
}

// Rows of y that are sums over row (t, h) of x.
inline int RowsAbove(const Geometry& g, const float* y, const float* kernel,
                     int64_t kernel_row, int64_t n, int64_t t, int64_t h,
                     Row* rows) {
  int count = 0;
  for (int64_t i = 0; i < g.kt; ++i) {
    for (int64_t j = 0; j < g.kh; ++j) {
      const int64_t a = t + g.kt / 2 - i, b = h + g.kh / 2 - j;
      if (a < 0 || b < 0 || a % g.st || b % g.sh) continue;
      const int64_t u = a / g.st, v = b / g.sh;
      if (u >= g.u || v >= g.v) continue;
      rows[count++] = {y + ((n * g.u + u) * g.v + v) * g.z * g.f,
                       kernel + (i * g.kh + j) * kernel_row};
    }
  }
  return count;
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_CONV_ROWS_H_
