// Channel-separated 3-D convolution and its gradients, float32, channels last.
//
// A row of the result is a sum over rows of the input: a tile of columns and of
// as many channels as a register has lanes is summed in registers over all of
// them.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "conv_rows.h"
#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 5>;
using Input = Array;
using Output = ffi::Result<Array>;
using Strides = ffi::Span<const int64_t>;

// Floats of input that a piece of a parallel loop reads, about.
constexpr int64_t kPiece = 1 << 15;
// Rows whose gradients are summed at once, by the kernel's columns.
constexpr int kGroup[] = {0, 5, 0, 3};
// Columns of the result in a tile.
constexpr int kTile = 8, kSmallTile = 4;

// y[o .. o + TILE) = Σ_rows Σ_j x[SW·o + j - KW/2] · kernel[j] for V channels.
// `step` leads from a kernel's column to the next one, perhaps backwards.
template <int V, int TILE, int KW, int SW, bool INSIDE>
MTNET_INLINE void CorrelateTile(const Row* rows, int count, int64_t c,
                                int64_t channel, int64_t o, int64_t w,
                                int64_t z, int64_t step, float* y) {
  constexpr int kColumns = (TILE - 1) * SW + KW;
  const int64_t first = o * SW - KW / 2;
  Vector<V> sums[TILE] = {};
  for (int r = 0; r < count; ++r) {
    const float* x = rows[r].x + first * c + channel;
    Vector<V> taps[KW];
#pragma GCC unroll 8
    for (int j = 0; j < KW; ++j) {
      taps[j] = Load<V>(rows[r].kernel + j * step + channel);
      Keep(taps[j]);
    }
#pragma GCC unroll 32
    for (int q = 0; q < kColumns; ++q) {
      Vector<V> value = {};
      if (INSIDE || (first + q >= 0 && first + q < w)) {
        value = Load<V>(x + q * c);
      }
      Keep(value);
#pragma GCC unroll 8
      for (int j = 0; j < KW; ++j) {
        if (q >= j && (q - j) % SW == 0 && (q - j) / SW < TILE) {
          sums[(q - j) / SW] += value * taps[j];
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < TILE; ++i) {
    if (INSIDE || o + i < z) Store<V>(y + (o + i) * c + channel, sums[i]);
  }
}

template <int V, int KW, int SW>
MTNET_INLINE void CorrelateRow(const Row* rows, int count, int64_t c,
                               int64_t w, int64_t z, int64_t step, float* y) {
  for (int64_t o = 0; o < z;) {
    const int64_t first = o * SW - KW / 2;
    const bool small = V < kLanes || z - o <= kSmallTile;
    const bool inside = first >= 0 && o + kTile <= z &&
                        first + (kTile - 1) * SW + KW <= w;
    ForChannels<V>(c, [&](auto lanes, int64_t channel)
                          __attribute__((always_inline)) {
      constexpr int L = lanes;
      if (small) {
        CorrelateTile<L, kSmallTile, KW, SW, false>(rows, count, c, channel, o,
                                                    w, z, step, y);
      } else if constexpr (V == kLanes) {
        if (inside) {
          CorrelateTile<L, kTile, KW, SW, true>(rows, count, c, channel, o, w,
                                                z, step, y);
        } else {
          CorrelateTile<L, kTile, KW, SW, false>(rows, count, c, channel, o, w,
                                                 z, step, y);
        }
      }
    });
    o += small ? kSmallTile : kTile;
  }
}

// x[2m + r] = Σ_rows Σ_j dy[m'] · kernel[j] over all 2m' + j - 1 = 2m + r, for
// a tile of m and V channels: the input's gradient at three columns, stride 2.
template <int V>
MTNET_INLINE void SpreadTile(const Row* rows, int count, int64_t c,
                             int64_t channel, int64_t m, int64_t w, int64_t z,
                             float* x) {
  Vector<V> even[kSmallTile] = {}, odd[kSmallTile] = {};
  for (int r = 0; r < count; ++r) {
    const float* dy = rows[r].x + m * c + channel;
    Vector<V> taps[3];
#pragma GCC unroll 8
    for (int j = 0; j < 3; ++j) {
      taps[j] = Load<V>(rows[r].kernel + j * c + channel);
      Keep(taps[j]);
    }
#pragma GCC unroll 8
    for (int q = 0; q <= kSmallTile; ++q) {
      Vector<V> value = {};
      if (m + q < z) value = Load<V>(dy + q * c);
      Keep(value);
      if (q < kSmallTile) {
        even[q] += value * taps[1];
        odd[q] += value * taps[2];
      }
      if (q > 0) odd[q - 1] += value * taps[0];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kSmallTile; ++i) {
    const int64_t column = 2 * (m + i);
    if (column < w) Store<V>(x + column * c + channel, even[i]);
    if (column + 1 < w) Store<V>(x + (column + 1) * c + channel, odd[i]);
  }
}

template <int V>
MTNET_INLINE void SpreadRow(const Row* rows, int count, int64_t c, int64_t w,
                            int64_t z, float* x) {
  for (int64_t m = 0; 2 * m < w; m += kSmallTile) {
    ForChannels<V>(c, [&](auto lanes, int64_t channel)
                          __attribute__((always_inline)) {
      SpreadTile<lanes>(rows, count, c, channel, m, w, z, x);
    });
  }
}

template <int V>
void ForwardRow(const Geometry& g, const Row* rows, int count, float* y) {
  if (g.kw == 1) {
    CorrelateRow<V, 1, 1>(rows, count, g.c, g.w, g.z, g.c, y);
  } else if (g.sw == 1) {
    CorrelateRow<V, 3, 1>(rows, count, g.c, g.w, g.z, g.c, y);
  } else {
    CorrelateRow<V, 3, 2>(rows, count, g.c, g.w, g.z, g.c, y);
  }
}

template <int V>
void InputGradientRow(const Geometry& g, Row* rows, int count, float* dx) {
  if (g.sw == 2) return SpreadRow<V>(rows, count, g.c, g.w, g.z, dx);
  // The correlation with the kernel's columns in reverse.
  for (int r = 0; r < count; ++r) rows[r].kernel += (g.kw - 1) * g.c;
  if (g.kw == 1) {
    CorrelateRow<V, 1, 1>(rows, count, g.c, g.z, g.w, -g.c, dx);
  } else {
    CorrelateRow<V, 3, 1>(rows, count, g.c, g.z, g.w, -g.c, dx);
  }
}

// Adds Σ_w dy[w] · x[SW·w + k - KW/2] of a group of rows to sums[row][k][V].
template <int V, int KW, int SW>
MTNET_INLINE void ProductsOfRows(const float* const* x, const float* dy,
                                 int64_t c, int64_t w, int64_t z,
                                 float* sums) {
  constexpr int kRows = kGroup[KW];
  Vector<V> total[kRows][KW];
  Vector<V> before[kRows], at[kRows];  // columns SW·w - 1 and SW·w
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    before[r] = Vector<V>{};
    at[r] = Load<V>(x[r]);
#pragma GCC unroll 8
    for (int k = 0; k < KW; ++k) total[r][k] = Load<V>(sums + (r * KW + k) * V);
  }
  for (int64_t o = 0; o < z; ++o) {
    Vector<V> d = Load<V>(dy + o * c);
    Keep(d);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      if constexpr (KW == 1) {
        total[r][0] += d * Load<V>(x[r] + SW * o * c);
      } else {
        Vector<V> after = {};
        if (SW * o + 1 < w) after = Load<V>(x[r] + (SW * o + 1) * c);
        Keep(after);
        total[r][0] += d * before[r];
        total[r][1] += d * at[r];
        total[r][2] += d * after;
        if constexpr (SW == 1) {
          before[r] = at[r];
          at[r] = after;
        } else {
          before[r] = after;
          if (SW * o + 2 < w) at[r] = Load<V>(x[r] + (SW * o + 2) * c);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int k = 0; k < KW; ++k) Store<V>(sums + (r * KW + k) * V, total[r][k]);
  }
}

// Adds the gradients of the kernel from one row of y to sums[block][row][k][V].
template <int V, int KW, int SW>
MTNET_INLINE void KernelGradientRow(const Geometry& g, const float* const* x,
                                    const float* dy, int64_t groups,
                                    float* sums) {
  constexpr int kRows = kGroup[KW];
  ForChannels<V>(g.c, [&](auto lanes, int64_t channel)
                          __attribute__((always_inline)) {
    constexpr int L = lanes;
    for (int64_t group = 0; group < groups; ++group) {
      const float* rows[kRows];
      for (int r = 0; r < kRows; ++r) rows[r] = x[group * kRows + r] + channel;
      ProductsOfRows<L, KW, SW>(rows, dy + channel, g.c, g.w, g.z, sums);
      sums += kRows * KW * L;
    }
  });
}

// The kernel's gradient from frames [begin, end) of y, of all clips in a row.
template <int V>
void KernelGradientFrames(const Geometry& g, const float* x, const float* dy,
                          int64_t begin, int64_t end, const float* zeros,
                          float* dkernel) {
  const int64_t rows = g.kt * g.kh, per_group = kGroup[g.kw];
  const int64_t groups = (rows + per_group - 1) / per_group;
  const int64_t lanes = (g.c + V - 1) / V * V;
  std::vector<float> sums(groups * per_group * g.kw * lanes);
  std::vector<const float*> below(groups * per_group);
  for (int64_t frame = begin; frame < end; ++frame) {
    const int64_t n = frame / g.u, u = frame % g.u;
    for (int64_t v = 0; v < g.v; ++v) {
      std::fill(below.begin(), below.end(), zeros);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t t = u * g.st + r / g.kh - g.kt / 2;
        const int64_t h = v * g.sh + r % g.kh - g.kh / 2;
        if (t < 0 || t >= g.t || h < 0 || h >= g.h) continue;
        below[r] = x + ((n * g.t + t) * g.h + h) * g.w * g.c;
      }
      const float* row = dy + (frame * g.v + v) * g.z * g.c;
      if (g.kw == 1) {
        KernelGradientRow<V, 1, 1>(g, below.data(), row, groups, sums.data());
      } else if (g.sw == 1) {
        KernelGradientRow<V, 3, 1>(g, below.data(), row, groups, sums.data());
      } else {
        KernelGradientRow<V, 3, 2>(g, below.data(), row, groups, sums.data());
      }
    }
  }
  const float* from = sums.data();
  ForChannels<V>(g.c, [&](auto lanes, int64_t channel) {
    constexpr int L = lanes;
    for (int64_t i = 0; i < rows * g.kw; ++i) {
      std::copy_n(from + i * L, L, dkernel + i * g.c + channel);
    }
    from += groups * per_group * g.kw * L;
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Input x, Input kernel,
                   Strides strides, Output y) {
  const Geometry g = MakeGeometry(x.dimensions(), y->dimensions(),
                                  kernel.dimensions(), strides);
  const float *x_data = x.typed_data(), *kernel_data = kernel.typed_data();
  float* y_data = y->typed_data();
  const int64_t piece = kPiece / (g.kt * g.w * g.c);
  ParallelFor(pool, g.n * g.u * g.v, piece, [&](int64_t begin, int64_t end) {
    Row rows[kMaxRows];
    for (int64_t i = begin; i < end; ++i) {
      const int count = RowsBelow(g, x_data, kernel_data, g.kw * g.c,
                                  i / g.v / g.u, i / g.v % g.u, i % g.v, rows);
      float* row = y_data + i * g.z * g.c;
      MTNET_BY_CHANNELS(g.c, ForwardRow, g, rows, count, row);
    }
  });
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool pool, Input dy, Input kernel,
                         Strides strides, Output dx) {
  const Geometry g = MakeGeometry(dx->dimensions(), dy.dimensions(),
                                  kernel.dimensions(), strides);
  const float *dy_data = dy.typed_data(), *kernel_data = kernel.typed_data();
  float* dx_data = dx->typed_data();
  const int64_t piece = kPiece / (g.kt * g.w * g.c);
  ParallelFor(pool, g.n * g.t * g.h, piece, [&](int64_t begin, int64_t end) {
    Row rows[kMaxRows];
    for (int64_t i = begin; i < end; ++i) {
      const int count = RowsAbove(g, dy_data, kernel_data, g.kw * g.c,
                                  i / g.h / g.t, i / g.h % g.t, i % g.h, rows);
      float* row = dx_data + i * g.w * g.c;
      MTNET_BY_CHANNELS(g.c, InputGradientRow, g, rows, count, row);
    }
  });
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Input x, Input dy,
                          Strides strides, Output dkernel) {
  const Geometry g = MakeGeometry(x.dimensions(), dy.dimensions(),
                                  dkernel->dimensions(), strides);
  const float *x_data = x.typed_data(), *dy_data = dy.typed_data();
  float* dkernel_data = dkernel->typed_data();
  // Parts by the shape alone: the same sums on any number of threads.
  const int64_t frames = g.n * g.u, per_part = (frames + 31) / 32;
  const int64_t size = dkernel->element_count();
  const int64_t parts = (frames + per_part - 1) / per_part;
  std::vector<float> sums(parts * size), zeros(g.w * g.c);
  ParallelFor(pool, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t last = std::min(frames, (i + 1) * per_part);
      float* part = sums.data() + i * size;
      MTNET_BY_CHANNELS(g.c, KernelGradientFrames, g, x_data, dy_data,
                        i * per_part, last, zeros.data(), part);
    }
  });
  std::fill_n(dkernel_data, size, 0.0f);
  for (int64_t i = 0; i < parts; ++i)
    for (int64_t j = 0; j < size; ++j) dkernel_data[j] += sums[i * size + j];
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Input>().Arg<Input>()
      .Attr<Strides>("strides").Ret<Array>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(separated_conv_forward, Forward, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(separated_conv_input_gradient, InputGradient,
                              Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(separated_conv_kernel_gradient, KernelGradient,
                              Binding());

}  // namespace mtnet
