// Grouped 3-D convolution and its gradients, float32, channels last.
//
// A tile of columns and of as many features as a register has lanes is summed
// in registers, over all rows, columns and channels below it.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "conv_rows.h"
#include "grouped_lanes.h"
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

// Products in a piece of a parallel loop, about.
constexpr int64_t kPiece = 1 << 18;
// Of the result: for so few, a kernel is not packed, which takes longer.
constexpr int64_t kFewPositions = 256;
// Columns of the result in a tile.
constexpr int kTile = 8, kSmallTile = 4;

// y[o .. o + TILE) = Σ_rows Σ_k x[SW·o + k - KW/2] · kernel[k].
template <int V, int D, int TILE, int KW, int SW, bool INSIDE>
MTNET_INLINE void CorrelateTile(const Row* rows, int count, const Line& line,
                                const Place& at, int64_t o, float* y) {
  constexpr int kColumns = (TILE - 1) * SW + KW;
  const int64_t first = o * SW - KW / 2;
  Vector<V> sums[TILE] = {};
  for (int r = 0; r < count; ++r) {
    const float* x = rows[r].x + first * line.c + at.channel;
    const float* kernel = rows[r].kernel + at.lane;
    ForInputs<D>(line.d, [&](auto j, int64_t channel)
                             __attribute__((always_inline)) {
      Vector<V> taps[KW];
#pragma GCC unroll 8
      for (int k = 0; k < KW; ++k) {
        taps[k] =
            Load<V>(kernel + (channel + j) * line.lanes + k * line.column);
        Keep(taps[k]);
      }
#pragma GCC unroll 32
      for (int q = 0; q < kColumns; ++q) {
        if (!INSIDE && (first + q < 0 || first + q >= line.w)) continue;
        Vector<V> value = Value<V, D, j>(x + q * line.c + channel);
        Keep(value);
#pragma GCC unroll 8
        for (int k = 0; k < KW; ++k) {
          if (q >= k && (q - k) % SW == 0 && (q - k) / SW < TILE) {
            sums[(q - k) / SW] += value * taps[k];
          }
        }
      }
    });
  }
#pragma GCC unroll 8
  for (int i = 0; i < TILE; ++i) {
    if (INSIDE || o + i < line.z) {
      StoreSome<V>(y + (o + i) * line.f + at.feature, sums[i], at.count);
    }
  }
}

template <int V, int D, int KW, int SW>
void CorrelateRow(const Row* rows, int count, const Line& line,
                  const Place& at, float* y) {
  for (int64_t o = 0; o < line.z;) {
    const int64_t first = o * SW - KW / 2;
    if (line.z - o <= kSmallTile) {
      CorrelateTile<V, D, kSmallTile, KW, SW, false>(rows, count, line, at, o,
                                                     y);
      return;
    }
    if (first >= 0 && o + kTile <= line.z &&
        first + (kTile - 1) * SW + KW <= line.w) {
      CorrelateTile<V, D, kTile, KW, SW, true>(rows, count, line, at, o, y);
    } else {
      CorrelateTile<V, D, kTile, KW, SW, false>(rows, count, line, at, o, y);
    }
    o += kTile;
  }
}

// x[2m + r] = Σ_rows Σ_k dy[m'] · kernel[k] over all 2m' + k - 1 = 2m + r: the
// input's gradient at three columns, stride 2.
template <int V, int D>
void SpreadRow(const Row* rows, int count, const Line& line, const Place& at,
               float* x) {
  for (int64_t m = 0; 2 * m < line.z; m += kSmallTile) {
    Vector<V> even[kSmallTile] = {}, odd[kSmallTile] = {};
    for (int r = 0; r < count; ++r) {
      const float* dy = rows[r].x + m * line.c + at.channel;
      const float* kernel = rows[r].kernel + at.lane;
      ForInputs<D>(line.d, [&](auto j, int64_t channel)
                               __attribute__((always_inline)) {
        Vector<V> taps[3];
#pragma GCC unroll 8
        for (int k = 0; k < 3; ++k) {
          taps[k] =
              Load<V>(kernel + (channel + j) * line.lanes + k * line.column);
          Keep(taps[k]);
        }
#pragma GCC unroll 8
        for (int q = 0; q <= kSmallTile; ++q) {
          if (m + q >= line.w) continue;
          Vector<V> value = Value<V, D, j>(dy + q * line.c + channel);
          Keep(value);
          if (q < kSmallTile) {
            even[q] += value * taps[1];
            odd[q] += value * taps[2];
          }
          if (q > 0) odd[q - 1] += value * taps[0];
        }
      });
    }
#pragma GCC unroll 8
    for (int i = 0; i < kSmallTile; ++i) {
      const int64_t column = 2 * (m + i);
      float* to = x + column * line.f + at.feature;
      if (column < line.z) StoreSome<V>(to, even[i], at.count);
      if (column + 1 < line.z) StoreSome<V>(to + line.f, odd[i], at.count);
    }
  }
}

// Adds Σ_o dy[o] · x[SW·o + k - KW/2] of a row to total[channel][k].
template <int V, int D, int J, int KW, int SW>
MTNET_INLINE void AddProducts(const float* x, const float* dy,
                              const Geometry& g, Vector<V> (*total)[KW]) {
  constexpr bool kSlides = KW == 3 && SW == 1;  // each value meets three of dy
  Vector<V> before = {}, at = Load<V>(dy);
  for (int64_t o = 0; o < g.z; ++o) {
    if constexpr (kSlides) {
      Vector<V> after = {};
      if (o + 1 < g.z) after = Load<V>(dy + (o + 1) * g.f);
      Keep(after);
      ForConstants<J>([&](auto j) __attribute__((always_inline)) {
        Vector<V> value = Value<V, D, j>(x + o * g.c);
        Keep(value);
        total[j][0] += value * after;
        total[j][1] += value * at;
        total[j][2] += value * before;
      });
      before = at;
      at = after;
    } else {
      at = Load<V>(dy + o * g.f);
      ForConstants<KW>([&](auto k) __attribute__((always_inline)) {
        const int64_t q = o * SW + k - KW / 2;
        if (q < 0 || q >= g.w) return;
        ForConstants<J>([&](auto j) __attribute__((always_inline)) {
          total[j][k] += at * Value<V, D, j>(x + q * g.c);
        });
      });
    }
  }
}

// The kernel's gradient for row i of its frames, J channels at a time.
template <int V, int D, int J, int KW, int SW>
void SumProducts(const Geometry& g, int64_t depth, const float* x,
                 const float* dy, const Place& at, int64_t i, float* dkernel) {
  std::vector<float> sums(g.kh * depth * KW * V);
  // A register that ends beyond a row's features begins with others.
  const int64_t first = std::min(at.feature, g.f - V);
  for (int64_t frame = 0; frame < g.n * g.u; ++frame) {
    const int64_t t = frame % g.u * g.st + i - g.kt / 2;
    if (t < 0 || t >= g.t) continue;
    const float* x_frame = x + (frame / g.u * g.t + t) * g.h * g.w * g.c;
    const float* dy_frame = dy + frame * g.v * g.z * g.f + first;
    float* part = sums.data();
    for (int64_t j = 0; j < g.kh; ++j) {
      for (int64_t d = 0; d < depth; d += J, part += J * KW * V) {
        Vector<V> total[J][KW];
        ForConstants<J * KW>([&](auto a) __attribute__((always_inline)) {
          total[a / KW][a % KW] = Load<V>(part + a * V);
        });
        for (int64_t v = 0; v < g.v; ++v) {
          const int64_t h = v * g.sh + j - g.kh / 2;
          if (h < 0 || h >= g.h) continue;
          AddProducts<V, D, J, KW, SW>(x_frame + h * g.w * g.c + at.channel + d,
                                       dy_frame + v * g.z * g.f, g, total);
        }
        ForConstants<J * KW>([&](auto a) __attribute__((always_inline)) {
          Store<V>(part + a * V, total[a / KW][a % KW]);
        });
      }
    }
  }
  const float* part = sums.data();
  for (int64_t j = 0; j < g.kh; ++j) {
    for (int64_t d = 0; d < depth; ++d) {
      for (int64_t k = 0; k < KW; ++k, part += V) {
        const int64_t tap = (i * g.kh + j) * KW + k;
        std::copy_n(part + at.feature - first, at.count,
                    dkernel + (tap * depth + d) * g.f + at.feature);
      }
    }
  }
}

template <int V, int D, int J>
void SumProductsOf(const Geometry& g, int64_t depth, const float* x,
                   const float* dy, const Place& at, int64_t i,
                   float* dkernel) {
  if (g.kw == 1) {
    SumProducts<V, D, J, 1, 1>(g, depth, x, dy, at, i, dkernel);
  } else if (g.sw == 1) {
    SumProducts<V, D, J, 3, 1>(g, depth, x, dy, at, i, dkernel);
  } else {
    SumProducts<V, D, J, 3, 2>(g, depth, x, dy, at, i, dkernel);
  }
}

// Calls f(n, frame, row, unit) in parallel; units of a frame in turn, so that
// the kernel's values for them stay near.
template <typename F>
void ForRows(ffi::ThreadPool& pool, int64_t n, int64_t t, int64_t h,
             const Line& line, int64_t taps, const F& f) {
  const int64_t units = line.f / UnitSize(line);
  const int64_t products = taps * line.d * line.z * UnitSize(line);
  ParallelFor(pool, n * t * units * h, kPiece / products,
              [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / h / units;
      f(frame / t, frame % t, i % h, i / h % units);
    }
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Input x, Input kernel,
                   Strides strides, Output y) {
  const Geometry g = MakeGeometry(x.dimensions(), y->dimensions(),
                                  kernel.dimensions(), strides);
  const int64_t d = kernel.dimensions()[3], e = g.f / (g.c / d);
  const int64_t taps = g.kt * g.kh * g.kw;
  Line line = {g.w, g.c, g.z, g.f, d, e, 0, 0};
  line.lanes = LanesOf(UnitSize(line));
  std::vector<float> packed;
  const float* kernels = kernel.typed_data();
  int64_t next = line.lanes;  // from a unit's kernel to the next unit's
  if (next == UnitSize(line) && g.n * g.u * g.v * g.z <= kFewPositions) {
    line.lanes = g.f;
  } else {
    packed = Pack(pool, kernels, taps, line,
                  [&](int64_t tap, int64_t channel, int64_t feature) {
      return (tap * d + channel) * g.f + feature;
    });
    kernels = packed.data();
    next = taps * d * line.lanes;
  }
  line.column = d * line.lanes;
  const float* x_data = x.typed_data();
  float* y_data = y->typed_data();
  ForRows(pool, g.n, g.u, g.v, line, taps,
          [&](int64_t n, int64_t u, int64_t v, int64_t unit) {
    const float* kernel = kernels + unit * next;
    Row rows[kMaxRows];
    const int count =
        RowsBelow(g, x_data, kernel, g.kw * line.column, n, u, v, rows);
    float* row = y_data + ((n * g.u + u) * g.v + v) * g.z * g.f;
    ForPlaces(line, unit, [&](auto lanes, auto small, Place at) {
      if (g.kw == 1) {
        CorrelateRow<lanes, small, 1, 1>(rows, count, line, at, row);
      } else if (g.sw == 1) {
        CorrelateRow<lanes, small, 3, 1>(rows, count, line, at, row);
      } else {
        CorrelateRow<lanes, small, 3, 2>(rows, count, line, at, row);
      }
    });
  });
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool pool, Input dy, Input kernel,
                         Strides strides, Output dx) {
  const Geometry g = MakeGeometry(dx->dimensions(), dy.dimensions(),
                                  kernel.dimensions(), strides);
  const int64_t d = kernel.dimensions()[3], e = g.f / (g.c / d);
  const int64_t taps = g.kt * g.kh * g.kw;
  // From features to channels.
  Line line = {g.z, g.f, g.w, g.c, e, d, 0, 0};
  line.lanes = LanesOf(UnitSize(line));
  const int64_t column = e * line.lanes;
  const auto packed = Pack(
      pool, kernel.typed_data(), taps, line,
      [&](int64_t tap, int64_t feature, int64_t channel) {
        return (tap * d + channel % d) * g.f + channel / d * e + feature;
      });
  // Without a stride, it is the correlation with the columns in reverse.
  const bool spread = g.sw == 2;
  line.column = spread ? column : -column;
  const float* dy_data = dy.typed_data();
  float* dx_data = dx->typed_data();
  ForRows(pool, g.n, g.t, g.h, line, taps,
          [&](int64_t n, int64_t t, int64_t h, int64_t unit) {
    const float* kernel = packed.data() + unit * taps * column;
    if (!spread) kernel += (g.kw - 1) * column;
    Row rows[kMaxRows];
    const int count =
        RowsAbove(g, dy_data, kernel, g.kw * column, n, t, h, rows);
    float* row = dx_data + ((n * g.t + t) * g.h + h) * g.w * g.c;
    ForPlaces(line, unit, [&](auto lanes, auto small, Place at) {
      if (g.kw == 1) {
        CorrelateRow<lanes, small, 1, 1>(rows, count, line, at, row);
      } else if (spread) {
        SpreadRow<lanes, small>(rows, count, line, at, row);
      } else {
        CorrelateRow<lanes, small, 3, 1>(rows, count, line, at, row);
      }
    });
  });
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Input x, Input dy,
                          Strides strides, Output dkernel) {
  const Geometry g = MakeGeometry(x.dimensions(), dy.dimensions(),
                                  dkernel->dimensions(), strides);
  const int64_t d = dkernel->dimensions()[3], e = g.f / (g.c / d);
  const Line line = {g.w, g.c, g.z, g.f, d, e, 0, 0};
  const float *x_data = x.typed_data(), *dy_data = dy.typed_data();
  float* dkernel_data = dkernel->typed_data();
  const int64_t units = g.f / UnitSize(line);
  ParallelFor(pool, units * g.kt, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ForPlaces(line, i / g.kt, [&](auto lanes, auto small, Place at) {
        const auto sum = [&](auto j) {
          SumProductsOf<lanes, small, j>(g, d, x_data, dy_data, at, i % g.kt,
                                         dkernel_data);
        };
        if constexpr (small > 0) {
          sum(small);
        } else if (d % 4 == 0) {
          sum(Lanes<4>{});
        } else if (d % 3 == 0) {
          sum(Lanes<3>{});
        } else {
          sum(Lanes<1>{});
        }
      });
    }
  });
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Input>().Arg<Input>()
      .Attr<Strides>("strides").Ret<Array>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(grouped_conv_forward, Forward, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(grouped_conv_input_gradient, InputGradient,
                              Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(grouped_conv_kernel_gradient, KernelGradient,
                              Binding());

}  // namespace mtnet
