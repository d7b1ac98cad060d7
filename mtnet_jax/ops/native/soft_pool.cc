// SoftPool over 2×2 windows of chosen frames, float32, channels last.
//
// At an odd edge a window has the elements that there are.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {
namespace {

namespace ffi = xla::ffi;
using Array = ffi::Buffer<ffi::F32, 5>;
using Indices = ffi::Buffer<ffi::S32, 2>;
using Output = ffi::Result<Array>;

// The exponentials of a window's values, less the largest, and their sum.
template <int V, int COUNT>
MTNET_INLINE Vector<V> Exponentials(const float* const* elements, int64_t at,
                                    Vector<V>* values, Vector<V>* exps) {
  Vector<V> largest;
#pragma GCC unroll 4
  for (int i = 0; i < COUNT; ++i) {
    values[i] = Load<V>(elements[i] + at);
    largest = i ? (values[i] > largest ? values[i] : largest) : values[i];
  }
  Vector<V> total = {};
#pragma GCC unroll 4
  for (int i = 0; i < COUNT; ++i) {
    exps[i] = ExpOfNegative<V>(values[i] - largest);
    total += exps[i];
  }
  return total;
}

template <int V, int COUNT>
MTNET_INLINE void PoolWindow(const float* const* elements, int64_t c,
                             float* y) {
  ForChannels<V>(c, [&](auto lanes, int64_t channel)
                        __attribute__((always_inline)) {
    constexpr int L = lanes;
    Vector<L> values[COUNT], exps[COUNT];
    const Vector<L> total =
        Exponentials<L, COUNT>(elements, channel, values, exps);
    Vector<L> sum = {};
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; ++i) sum += values[i] * exps[i];
    Store<L>(y + channel, sum / total);
  });
}

// Adds to each element of a window its weight's share of dy.
template <int V, int COUNT>
MTNET_INLINE void SpreadWindow(const float* const* elements, int64_t c,
                               const float* dy, const float* const* beside,
                               float* const* dx) {
  ForChannels<V>(c, [&](auto lanes, int64_t channel)
                        __attribute__((always_inline)) {
    constexpr int L = lanes;
    Vector<L> values[COUNT], exps[COUNT];
    const Vector<L> total =
        Exponentials<L, COUNT>(elements, channel, values, exps);
    const Vector<L> share = Load<L>(dy + channel) / total;
#pragma GCC unroll 4
    for (int i = 0; i < COUNT; ++i) {
      Store<L>(dx[i] + channel,
               Load<L>(beside[i] + channel) + exps[i] * share);
    }
  });
}

// Calls f(count, offsets, window) for the windows below one row of the result:
// offsets of a window's elements from the row's first one.
template <typename F>
MTNET_INLINE void ForWindows(int64_t w, int64_t c, bool below, const F& f) {
  const int64_t pairs = w / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    const int64_t left = 2 * i * c, right = left + c;
    const int64_t offsets[4] = {left, right, left + w * c, right + w * c};
    f(below ? 4 : 2, offsets, i);
  }
  if (w % 2) {
    const int64_t last = (w - 1) * c;
    const int64_t offsets[4] = {last, last + w * c};
    f(below ? 2 : 1, offsets, pairs);
  }
}

template <int V>
void PoolRow(const float* x, int64_t w, int64_t c, bool below, float* y) {
  ForWindows(w, c, below, [&](int count, const int64_t* offsets, int64_t i)
                              __attribute__((always_inline)) {
    const float* elements[4];
    for (int k = 0; k < count; ++k) elements[k] = x + offsets[k];
    float* to = y + i * c;
    if (count == 4) PoolWindow<V, 4>(elements, c, to);
    else if (count == 2) PoolWindow<V, 2>(elements, c, to);
    else PoolWindow<V, 1>(elements, c, to);
  });
}

template <int V>
void SpreadRow(const float* x, int64_t w, int64_t c, bool below,
               const float* dy, const float* beside, float* dx) {
  ForWindows(w, c, below, [&](int count, const int64_t* offsets, int64_t i)
                              __attribute__((always_inline)) {
    const float *elements[4], *others[4];
    float* gradients[4];
    for (int k = 0; k < count; ++k) {
      elements[k] = x + offsets[k];
      others[k] = beside + offsets[k];
      gradients[k] = dx + offsets[k];
    }
    const float* from = dy + i * c;
    if (count == 4) SpreadWindow<V, 4>(elements, c, from, others, gradients);
    else if (count == 2) SpreadWindow<V, 2>(elements, c, from, others, gradients);
    else SpreadWindow<V, 1>(elements, c, from, others, gradients);
  });
}

// Frame i of clip n of the result pools frame frames[n, i] of x.
ffi::Error Forward(ffi::ThreadPool pool, Array x, Indices frames, Output y) {
  const auto d = x.dimensions();
  const int64_t t = d[1], h = d[2], w = d[3], c = d[4];
  const int64_t k = frames.dimensions()[1], rows = (h + 1) / 2;
  const int64_t row_size = (w + 1) / 2 * c;
  const float* x_data = x.typed_data();
  const int32_t* chosen = frames.typed_data();
  float* y_data = y->typed_data();
  ParallelFor(pool, d[0] * k * rows, 1 + 8192 / (w * c),
              [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / rows / k * t + chosen[i / rows];
      const int64_t row = i % rows * 2;
      MTNET_BY_CHANNELS(c, PoolRow, x_data + (frame * h + row) * w * c, w, c,
                        row + 1 < h, y_data + i * row_size);
    }
  });
  return ffi::Error::Success();
}

// The weights' gradient, added to what x's gradient has from elsewhere. No frame
// is chosen twice.
ffi::Error Backward(ffi::ThreadPool pool, Array x, Indices frames, Array dy,
                    Array beside, Output dx) {
  const auto d = x.dimensions();
  const int64_t n = d[0], t = d[1], h = d[2], w = d[3], c = d[4];
  const int64_t k = frames.dimensions()[1], rows = (h + 1) / 2;
  const int64_t row_size = (w + 1) / 2 * c;
  const float* x_data = x.typed_data();
  const float* dy_data = dy.typed_data();
  const float* beside_data = beside.typed_data();
  const int32_t* chosen = frames.typed_data();
  float* dx_data = dx->typed_data();
  std::vector<int64_t> place(n * t, -1);  // of each frame, in dy
  for (int64_t i = 0; i < n * k; ++i) place[i / k * t + chosen[i]] = i;
  ParallelFor(pool, n * t * rows, 1 + 8192 / (w * c),
              [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / rows, row = i % rows * 2;
      const bool below = row + 1 < h;
      const int64_t start = (frame * h + row) * w * c;
      if (place[frame] < 0) {
        std::copy_n(beside_data + start, (below ? 2 : 1) * w * c,
                    dx_data + start);
      } else {
        const float* from =
            dy_data + (place[frame] * rows + i % rows) * row_size;
        MTNET_BY_CHANNELS(c, SpreadRow, x_data + start, w, c, below, from,
                          beside_data + start, dx_data + start);
      }
    }
  });
  return ffi::Error::Success();
}

const auto kForward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Indices>()
      .Ret<Array>();
};

const auto kBackward = [] {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Array>()
      .Arg<Indices>()
      .Arg<Array>()
      .Arg<Array>()
      .Ret<Array>();
};

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(soft_pool_forward, Forward, kForward());
XLA_FFI_DEFINE_HANDLER_SYMBOL(soft_pool_backward, Backward, kBackward());

}  // namespace mtnet
