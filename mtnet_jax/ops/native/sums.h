// Sums over the rows of (groups, rows, channels), float32.
//
// Rows are summed in pieces that the first cache holds, and pieces in double
// precision: the same sums on any number of threads.
#ifndef MTNET_JAX_NATIVE_SUMS_H_
#define MTNET_JAX_NATIVE_SUMS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "vectors.h"
#include "xla/ffi/api/ffi.h"

namespace mtnet {

// Floats of each array in a piece.
constexpr int64_t kFloatsOfPiece = 1 << 12;
// Rows that are added at once, to sums of their own.
constexpr int kRows = 4;

// What element i of x, of channel j of its group, adds to each of K sums.
struct Value {
  static constexpr int K = 1;
  const float* x;

  template <int V>
  void Add(int64_t i, int64_t, Vector<V>* sums) const {
    sums[0] += Load<V>(x + i);
  }
};

// The same of x - near, and its square.
struct DifferenceAndSquare {
  static constexpr int K = 2;
  const float *x, *near;

  template <int V>
  void Add(int64_t i, int64_t j, Vector<V>* sums) const {
    const Vector<V> v = Load<V>(x + i) - Load<V>(near + j);
    sums[0] += v;
    sums[1] += v * v;
  }
};

enum Activation { kIdentity = 0, kRelu = 1, kSwish = 2 };

// dy times the derivatives of activation(gain · x + offset) by gain, by offset.
template <Activation ACTIVATION>
struct Gradient {
  static constexpr int K = 2;
  const float *x, *dy, *gain, *offset;

  template <typename A, typename B>
  void Read(const A& x_array, const A& dy_array, const B& gain_array,
            const B& offset_array) {
    x = x_array.typed_data();
    dy = dy_array.typed_data();
    gain = gain_array.typed_data();
    offset = offset_array.typed_data();
  }

  template <int V>
  void Add(int64_t i, int64_t j, Vector<V>* sums) const {
    const Vector<V> v = Load<V>(x + i);
    const Vector<V> y = Load<V>(gain + j) * v + Load<V>(offset + j);
    Vector<V> d = Load<V>(dy + i);
    if constexpr (ACTIVATION == kRelu) d = y > 0.0f ? d : Vector<V>{};
    if constexpr (ACTIVATION == kSwish) {
      const Vector<V> e = ExpOfNegative<V>(y > 0.0f ? -y : y);
      const Vector<V> s = (y > 0.0f ? Vector<V>{} + 1.0f : e) / (1.0f + e);
      d *= s * (1.0f + y * (1.0f - s));
    }
    sums[0] += d * v;
    sums[1] += d;
  }
};

// Sums rows [begin, end) of a group into K rows of c.
template <int V, typename Terms>
void SumRows(const Terms& terms, int64_t group, int64_t rows, int64_t c,
             int64_t begin, int64_t end, float* sums) {
  constexpr int K = Terms::K;
  const int64_t first = group * rows * c;
  ForChannels<V>(c, [&](auto lanes, int64_t channel)
                        __attribute__((always_inline)) {
    constexpr int L = lanes;
    const int64_t at = group * c + channel;
    Vector<L> total[kRows][K] = {};
    int64_t r = begin;
    for (; r + kRows <= end; r += kRows) {
#pragma GCC unroll 4
      for (int k = 0; k < kRows; ++k) {
        terms.template Add<L>(first + (r + k) * c + channel, at, total[k]);
      }
    }
    for (; r < end; ++r) {
      terms.template Add<L>(first + r * c + channel, at, total[0]);
    }
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) {
      Store<L>(sums + k * c + channel, (total[0][k] + total[1][k]) +
                                           (total[2][k] + total[3][k]));
    }
  });
}

// Sums all rows of every group, and calls finish(group, sums) with the K rows of
// c of each group, one after the other.
template <typename Terms, typename Finish>
void SumAll(xla::ffi::ThreadPool& pool, const Terms& terms, int64_t groups,
            int64_t rows, int64_t c, const Finish& finish) {
  constexpr int K = Terms::K;
  const int64_t piece = std::max<int64_t>(kRows, kFloatsOfPiece / c);
  const int64_t pieces = (rows + piece - 1) / piece;
  std::vector<float> sums(groups * pieces * K * c);
  ParallelFor(pool, groups * pieces, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % pieces * piece;
      const int64_t last = std::min(rows, first + piece);
      float* part = sums.data() + i * K * c;
      MTNET_BY_CHANNELS(c, SumRows, terms, i / pieces, rows, c, first, last,
                        part);
    }
  });
  std::vector<double> total(K * c);
  for (int64_t group = 0; group < groups; ++group) {
    std::fill(total.begin(), total.end(), 0.0);
    const float* part = sums.data() + group * pieces * K * c;
    for (int64_t i = 0; i < pieces; ++i, part += K * c) {
      for (int64_t j = 0; j < K * c; ++j) total[j] += part[j];
    }
    finish(group, total.data());
  }
}

// Calls sum(Gradient) of an activation by its number.
template <typename Sum>
void ByActivation(int64_t activation, const Sum& sum) {
  if (activation == kRelu) {
    sum(Gradient<kRelu>{});
  } else if (activation == kSwish) {
    sum(Gradient<kSwish>{});
  } else {
    sum(Gradient<kIdentity>{});
  }
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_SUMS_H_
